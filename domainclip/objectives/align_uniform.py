"""Alignment and uniformity: the two sides of a pair close together, everything else spread over the sphere.

Legend: b pairs, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import mean_over_rows

_Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class AlignUniform(Objective):
    """align · E‖x_i − y_i‖² + within · ½[U(x, x) + U(y, y)] + across · U(x, y).

    U(a, b) = log E exp(−t ‖a_i − b_j‖²) over i ≠ j of different groups [arXiv:2005.10242]. Added to a
    contrastive loss it closes the gap between the modalities, which that loss alone opens [arXiv:2405.18570].
    Costs the similarities of image to image and of text to text as well.
    """

    citation: ClassVar[str] = "arXiv:2005.10242"

    align: _Weight = 1.0
    within: _Weight = 1.0
    across: _Weight = 1.0
    t: Annotated[float, Field(gt=0, le=20)] = 2.0  # above that, fp32 sees nothing of what is far apart

    def __call__(self, views: Views) -> Tensor:
        """A scalar between −4 t (within + across) and 4 align."""
        image, text = views.image, views.text
        near = (image[views.local_slice] - text[views.local_slice]).square().sum(-1).mean()
        inside = (self._spread(views, image, image) + self._spread(views, text, text)) / 2
        return self.align * near + self.within * inside + self.across * self._spread(views, image, text)

    def _spread(self, views: Views, one: Tensor, other: Tensor) -> Tensor:
        """U, whose mean over the processes is that of the whole batch, in value and in gradient."""
        left = _different(views)
        if not left:
            return one.sum() * 0
        # −t ‖a − b‖² = 2 t a·b − 2 t: a logit and a bias. The mean over other processes is a constant here.
        scale = one.new_tensor(2 * self.t)
        rows, share = views.local_slice, len(one) / left
        own = share * mean_over_rows(_nearness, one[rows], other, scale, -scale, views.group, rows.start)
        with torch.no_grad():
            whole = share * mean_over_rows(_nearness, one, other, scale, -scale, views.group)
        return whole.log() + own / whole - 1


def _nearness(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ_j exp z_ij over the columns that are another pair's; it is its own slope."""
    logits = logits.exp_().scatter_(1, own[:, None], 0.0)
    if excluded is not None:
        logits.masked_fill_(excluded, 0.0)
    return logits.sum(dim=1), logits


def _different(views: Views) -> int:
    """How many ordered pairs (i, j) are of different groups, or just different."""
    b = len(views.image)
    if views.group is None:
        return b * (b - 1)
    _, sizes = views.group.unique(return_counts=True)
    return b * b - int(sizes.square().sum())
