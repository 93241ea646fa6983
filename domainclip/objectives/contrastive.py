"""The contrastive objective: each image picks its text out of the batch, and each text its image.

Legend: b pairs, k rows of a block, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import softmax, toward_targets
from domainclip.objectives.losses.label_matching import label_sets, same
from domainclip.objectives.losses.symmetric import both_ways


@dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """½ [CE(s/τ, T) + CE(sᵀ/τ, T)] with s_ij = x_i · y_j, and T after `targets`.

    Two X-rays with the same report would be pushed apart for being equal [arXiv:2103.00020]. So:
    mask: T = I, and pairs of one group leave each other's denominators;
    soft: pairs of one group share the target equally;
    labels: pairs with exactly the same labels, or of one group, share it equally, as UniCL and SupCon do
    [arXiv:2204.03610, arXiv:2004.11362]. A pair without labels has no other match by label.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    replaces: ClassVar[str] = "contrastive"

    targets: Literal["mask", "soft", "labels"] = "mask"

    @property
    def needs(self) -> frozenset[str]:
        """The labels, where they say what belongs together."""
        return frozenset({"labels"} if self.targets == "labels" else ())

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. Chance is ln b when no group repeats."""
        if self.targets == "mask":
            return both_ways(views, softmax, group=views.group)
        return both_ways(views, toward_targets(_shares(views, by_labels=self.targets == "labels")))


def _shares(views: Views, by_labels: bool) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The target of a block: one, shared equally among all that belong to a row."""
    marks = [views.group, label_sets(views.labels) if by_labels else None]

    def targets(own: Tensor, _: Tensor | None) -> Tensor:
        belongs = same(own, len(views.image), marks).to(views.image.dtype)
        return belongs / belongs.sum(dim=1, keepdim=True)

    return targets
