"""Contrastive: each image is matched with its text among all texts of the batch, and the reverse.

Legend: b pairs, k rows of a block, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import cross_entropy, soft_cross_entropy
from domainclip.objectives.losses.label_matching import label_sets, matching_pairs
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """½ [CE(s/τ, T) + CE(sᵀ/τ, T)] with s_ij = x_i · y_j, and T after `targets`.

    Two X-rays with the same report would be pushed apart although they are equal [arXiv:2103.00020]. A text
    is right for the images of its group, and for any image that may show the same caption. So:
    mask: T = I, and a text is no negative of an image that it is right for;
    soft: all right texts of an image share the target equally, and all right images of a text;
    labels: those of pairs with exactly the same labels share it too, as in UniCL and SupCon
    [arXiv:2204.03610, arXiv:2004.11362]. A pair without labels has no other match by label;
    identity: T = I and every other text is a negative, also one that is right: the loss of the first paper,
    for comparison.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    replaces: ClassVar[str] = "contrastive"

    # How pairs that share a right text, or their labels, count.
    targets: Literal["mask", "soft", "labels", "identity"] = "mask"

    @property
    def needs(self) -> frozenset[str]:
        """The labels, where they decide the target."""
        return frozenset({"labels"} if self.targets == "labels" else ())

    @property
    def negatives(self) -> Negatives:
        """Pairs that the target does not match."""
        return "other_labels" if self.targets == "labels" else "other_groups"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. Chance is ln b when no text is right for two images."""
        if self.targets in ("mask", "identity"):
            masks = views.masks if self.targets == "mask" else (None, None)
            return symmetric_loss(views, cross_entropy, masks=masks)
        numbers = [label_sets(views.labels)] if self.targets == "labels" else []
        to_text, to_image = (soft_cross_entropy(_shares(views, numbers, mask)) for mask in views.masks)
        return symmetric_loss(views, to_text, to_image)


def _shares(
    views: Views, numbers: Sequence[Tensor], mask: RowMask | None
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The targets of a block: 1, shared equally among all matches of a row."""

    def targets(target: Tensor, _: Tensor | None) -> Tensor:
        matches = matching_pairs(target, len(views.image), numbers, mask).to(views.image.dtype)
        return matches / matches.sum(dim=1, keepdim=True)

    return targets
