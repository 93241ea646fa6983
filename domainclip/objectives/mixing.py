"""Mixing: an image with a box of another one in it belongs to both captions, by area.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows, soft_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Mixing(Objective):
    """½ [CE(m_i → λ_i y_i and (1 − λ_i) y_p) + CE(y_i → λ_i m_i and (1 − λ_p) m_p)], where i is mixed with p.

    m_i is image i with a box of image p in the place of its own pixels, λ_i the share of its area that is
    left; neighbours in the batch are partners [arXiv:1905.04899]. The targets of a text are divided by their
    sum. Added to a contrastive objective: TiMix [arXiv:2312.08846]. Differs from it in the box, which lies
    anywhere, where TiMix chooses the patches by their similarity to the text. A box that covers what a
    caption names makes its share wrong: small findings suit it badly. Texts that are right for either image
    are no negatives. Costs a second encoding of every image.
    """

    citation: ClassVar[str] = "arXiv:2312.08846"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"mixed_image"})

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.mixed_image is not None  # the run fills what `needs` names
        assert views.mixed_share is not None
        rows, share = views.local_slice, views.mixed_share.to(views.image.dtype)
        index = torch.arange(len(share), device=share.device)
        partner = torch.where((index ^ 1) < len(share), index ^ 1, index)
        right_texts, right_images = views.masks
        sides = (
            (views.mixed_image, views.text, share, 1 - share, right_texts),
            (views.text, views.mixed_image, share, (1 - share)[partner], right_images),
        )
        losses = [
            mean_over_rows(
                _kernel(partner, own, other),
                queries[rows],
                candidates,
                views.scale,
                mask=None if right is None else _either(right, partner),
                first=rows.start,
            )
            for queries, candidates, own, other, right in sides
        ]
        return torch.stack(losses).mean()


def _kernel(partner: Tensor, own: Tensor, other: Tensor) -> Kernel:
    """Cross-entropy with the target `own` (b,) at the row's pair and `other` (b,) at its partner, per sum."""

    def targets(target: Tensor, excluded: Tensor | None) -> Tensor:
        rows = own.new_zeros(len(target), len(partner))
        rows.scatter_add_(1, target[:, None], own[target, None])
        rows.scatter_add_(1, partner[target, None], other[target, None])
        return rows / rows.sum(dim=1, keepdim=True).clamp_min(1e-12)

    return soft_cross_entropy(targets)


def _either(right: RowMask, partner: Tensor) -> RowMask:
    """What is right for a pair or its partner, without the two themselves, which are the targets."""

    def excluded(at: Tensor) -> Tensor:
        mask = right(at) | right(partner[at])
        return mask.scatter(1, partner[at, None], False).scatter(1, at[:, None], False)

    return excluded
