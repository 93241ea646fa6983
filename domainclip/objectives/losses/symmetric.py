"""Both directions of a batch: images look for texts, and texts for images."""

from __future__ import annotations

import torch
from torch import Tensor

from domainclip.objectives.base import Views
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows


def both_ways(
    views: Views, to_text: Kernel, to_image: Kernel | None = None, group: Tensor | None = None
) -> Tensor:
    """() the mean of both directions over the rows of this process; without `to_image`, one kernel for both.

    Pairs of one `group` (b,) are no answer to each other, right or wrong.
    """
    rows = views.local_slice
    sides = (
        (to_text, views.image, views.text),
        (to_text if to_image is None else to_image, views.text, views.image),
    )
    losses = [
        mean_over_rows(kernel, one[rows], other, views.scale, group=group, first=rows.start)
        for kernel, one, other in sides
    ]
    return torch.stack(losses).mean()
