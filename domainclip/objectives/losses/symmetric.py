"""Both directions of a batch: each image among all texts, and each text among all images."""

from __future__ import annotations

import torch
from torch import Tensor

from domainclip.objectives.base import Views
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows


def symmetric_loss(
    views: Views, to_text: Kernel, to_image: Kernel | None = None, group: Tensor | None = None
) -> Tensor:
    """() the mean of both directions over the rows of this process; without `to_image`, one kernel for both.

    Pairs of one `group` (b,) are neither positive nor negative for each other.
    """
    rows = views.local_slice
    sides = (
        (to_text, views.image, views.text),
        (to_text if to_image is None else to_image, views.text, views.image),
    )
    losses = [
        mean_over_rows(kernel, queries[rows], candidates, views.scale, group=group, first=rows.start)
        for kernel, queries, candidates in sides
    ]
    return torch.stack(losses).mean()
