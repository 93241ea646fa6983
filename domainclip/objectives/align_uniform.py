"""Alignment and uniformity: the two sides of a pair close together, everything else spread over the sphere.

Legend: b pairs, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import MAX_LOGITS, mean_over_rows

_Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class AlignUniform(Objective):
    """align · E‖x_i − y_i‖² + within · ½[U(x, x) + U(y, y)] + across · U(x, y).

    U(a, b) = log E exp(−t ‖a_i − b_j‖²) over i ≠ j that share no right text [arXiv:2005.10242]. Added to a
    contrastive loss it closes the gap between the modalities, which that loss alone opens [arXiv:2405.18570].
    Costs the similarities of image to image and of text to text as well.
    """

    citation: ClassVar[str] = "arXiv:2005.10242"

    align: _Weight = 1.0  # weight of the distance between an image and its text
    within: _Weight = 1.0  # weight of the spread of images, and of texts, among each other
    across: _Weight = 1.0  # weight of the spread between images and texts
    t: Annotated[float, Field(gt=0, le=20)] = 2.0  # above, the potential of distant pairs underflows in fp32

    def __call__(self, views: Views) -> Tensor:
        """A scalar between −4 t (within + across) and 4 align."""
        image, text = views.image, views.text
        distance = (image[views.local_slice] - text[views.local_slice]).square().sum(-1).mean()
        same_side, across = views.pair_mask, self._spread(views, image, text, views.masks[0])
        within = self._spread(views, image, image, same_side) + self._spread(views, text, text, same_side)
        return self.align * distance + self.within * within / 2 + self.across * across

    def _spread(self, views: Views, queries: Tensor, candidates: Tensor, mask: RowMask | None) -> Tensor:
        """U: the mean over the processes is that of the whole batch, in value and in gradient."""
        different_pairs = _count_different(queries, mask)
        if not different_pairs:
            return queries.sum() * 0
        # −t ‖a − b‖² = 2 t a·b − 2 t: a logit and a bias. The mean over other processes is a constant here.
        scale = queries.new_tensor(2 * self.t)
        rows, share = views.local_slice, len(queries) / different_pairs
        local = share * mean_over_rows(
            _gaussian_potential, queries[rows], candidates, scale, -scale, mask, rows.start
        )
        with torch.no_grad():
            total = share * mean_over_rows(_gaussian_potential, queries, candidates, scale, -scale, mask)
        return total.log() + local / total - 1


def _gaussian_potential(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ_j exp z_ij over the columns of other pairs, which is its gradient too."""
    logits = logits.exp_().scatter_(1, target[:, None], 0.0)
    if excluded is not None:
        logits.masked_fill_(excluded, 0.0)
    return logits.sum(dim=1), logits


def _count_different(queries: Tensor, mask: RowMask | None) -> int:
    """The number of ordered pairs (i, j), i ≠ j, that are not masked."""
    b = len(queries)
    if mask is None:
        return b * (b - 1)
    rows = torch.arange(b, device=queries.device)
    blocks = [(at, mask(at)) for at in rows.split(max(1, MAX_LOGITS // b))]
    return b * (b - 1) - sum(int(block.scatter_(1, at[:, None], False).sum()) for at, block in blocks)
