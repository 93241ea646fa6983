"""Both directions of a batch: each image among all texts, and each text among all images."""

from __future__ import annotations

import torch
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Views
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows


def symmetric_loss(
    views: Views,
    to_text: Kernel,
    to_image: Kernel | None = None,
    masks: tuple[RowMask | None, RowMask | None] = (None, None),
) -> Tensor:
    """() the mean of both directions over the rows of this process; without `to_image`, one kernel for both.

    The columns that `masks` return, of images and of texts, are neither positive nor negative for a row.
    """
    rows = views.local_slice
    sides = (
        (to_text, views.image, views.text, masks[0]),
        (to_text if to_image is None else to_image, views.text, views.image, masks[1]),
    )
    losses = [
        mean_over_rows(kernel, queries[rows], candidates, views.scale, mask=mask, first=rows.start)
        for kernel, queries, candidates, mask in sides
    ]
    return torch.stack(losses).mean()
