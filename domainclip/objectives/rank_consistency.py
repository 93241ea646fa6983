"""Rank consistency: the ranking of the batch by an image is the ranking by its text.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import kernel_from_losses, mean_over_rows

_Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class RankConsistency(Objective):
    """across · ½ [PL(s_i | s'_i) + PL(s'_i | s_i)] + within · ½ [PL(x_i | y_i) + PL(y_i | x_i)], mean over i.

    Rows of similarities over τ: s_i of image i to all texts, s'_i of text i to all images, x_i of image i to
    all images, y_i of text i to all texts. PL(z | r) = 1/b Σ_k [log Σ_{j≥k} exp z_π(j) − z_π(k)], with π the
    order of r from the largest: the list-wise likelihood of Plackett and Luce. The order is held constant.
    Pairs that share a right text are left out of each other's lists. Beside `contrastive`, which has one
    positive per row; a weight near 0.05 is usual. Costs a sort of each row: on a CPU ten times the arithmetic
    of `contrastive`. [arXiv:2404.09387]
    """

    citation: ClassVar[str] = "arXiv:2404.09387"
    negatives: ClassVar[Negatives] = "other_groups"

    across: _Weight = 1.0  # images against texts
    within: _Weight = 1.0  # images among themselves against texts among themselves

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per place of a list; one that has b places and no preference has (ln b!) / b."""
        image, text = views.image, views.text
        across = _agreement(views, (image, text), (text, image), views.masks)
        within = _agreement(views, (image, image), (text, text), (views.pair_mask, views.pair_mask))
        return self.across * across + self.within * within


_Pair = tuple[Tensor, Tensor]


def _agreement(
    views: Views, first: _Pair, second: _Pair, masks: tuple[RowMask | None, RowMask | None]
) -> Tensor:
    """() each of two kinds of lists in the order of the other."""
    rows = views.local_slice
    losses = [
        mean_over_rows(
            kernel_from_losses(partial(_list_likelihood, ranking)),
            queries[rows],
            candidates,
            views.scale,
            mask=mask,
            first=rows.start,
        )
        for (queries, candidates), ranking, mask in ((first, second, masks[0]), (second, first, masks[1]))
    ]
    return torch.stack(losses).mean()


def _list_likelihood(ranking: _Pair, logits: Tensor, target: Tensor, excluded: Tensor | None) -> Tensor:
    """(k,) PL of each row's logits in the order that the judges see."""
    with torch.no_grad():
        order = ranking[0][target] @ ranking[1].T
        left = torch.ones_like(logits) if excluded is None else (~excluded).to(logits.dtype)
        if excluded is not None:
            order = order.masked_fill_(excluded, -torch.inf)  # to the end of the list
        order = order.argsort(dim=1, descending=True, stable=True)
    if excluded is not None:  # finite, for minus infinity has no slope in a running sum
        logits = logits.masked_fill(excluded, -1e4)
    ranked = logits.gather(1, order)
    tails = ranked.flip(1).logcumsumexp(dim=1).flip(1)
    return ((tails - ranked) * left.gather(1, order)).sum(dim=1) / left.sum(dim=1)
