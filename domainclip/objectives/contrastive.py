"""Contrastive: each image is matched with its text among all texts of the batch, and the reverse.

Legend: b pairs, k rows of a block, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import cross_entropy, soft_cross_entropy
from domainclip.objectives.losses.label_matching import label_sets, matching_pairs
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """½ [CE(s/τ, T) + CE(sᵀ/τ, T)] with s_ij = x_i · y_j, and T after `targets`.

    Two X-rays with the same report would be pushed apart although they are equal [arXiv:2103.00020]. So:
    mask: T = I, and pairs of one group are not each other's negatives;
    soft: pairs of one group share the target equally;
    labels: pairs with exactly the same labels, or of one group, share it equally, as in UniCL and SupCon
    [arXiv:2204.03610, arXiv:2004.11362]. A pair without labels has no other match by label.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    replaces: ClassVar[str] = "contrastive"

    targets: Literal["mask", "soft", "labels"] = "mask"

    @property
    def needs(self) -> frozenset[str]:
        """The labels, where they decide the target."""
        return frozenset({"labels"} if self.targets == "labels" else ())

    @property
    def negatives(self) -> Negatives:
        """Pairs that the target does not match."""
        return "other_labels" if self.targets == "labels" else "other_groups"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. Chance is ln b when no group repeats."""
        if self.targets == "mask":
            return symmetric_loss(views, cross_entropy, group=views.group)
        return symmetric_loss(views, soft_cross_entropy(_shares(views, by_labels=self.targets == "labels")))


def _shares(views: Views, by_labels: bool) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The targets of a block: 1, shared equally among all matches of a row."""
    numbers = [views.group, label_sets(views.labels) if by_labels else None]

    def targets(target: Tensor, _: Tensor | None) -> Tensor:
        matches = matching_pairs(target, len(views.image), numbers).to(views.image.dtype)
        return matches / matches.sum(dim=1, keepdim=True)

    return targets
