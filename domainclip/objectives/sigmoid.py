"""Sigmoid: each combination of an image and a text is a binary classification.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import mean_over_rows, sigmoid_pairs
from domainclip.objectives.losses.label_matching import label_sets, matching_pairs
from domainclip.objectives.losses.ring import ring_mean


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Objective):
    """−1/b Σ_ij log σ(z_ij (t s_ij + β)), z = +1 for a positive combination and −1 for all others.

    `targets: mask`: only an image and its text are positive; other texts that are right for it are left out:
    those of its group, and captions that it may show itself.
    `targets: labels`: these, and the texts of pairs with exactly the same labels, are positive too.
    [arXiv:2303.15343]
    """

    citation: ClassVar[str] = "arXiv:2303.15343"
    replaces: ClassVar[str] = "sigmoid"

    # labels: pairs with exactly the same labels are right for each other too.
    targets: Literal["mask", "labels"] = "mask"

    @property
    def needs(self) -> frozenset[str]:
        """The labels, where they decide what is positive."""
        return frozenset({"labels"} if self.targets == "labels" else ())

    @property
    def negatives(self) -> Negatives:
        """Pairs that the target does not match."""
        return "other_labels" if self.targets == "labels" else "other_groups"

    @property
    def supports_ring(self) -> bool:
        """Whether texts can be passed around a ring: where no labels are compared."""
        return self.targets == "mask"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        if views.local_only:
            return ring_mean(views.image, views.text, views.scale, views.bias, views.matches)
        rows, kernel, mask = views.local_slice, sigmoid_pairs, views.masks[0]
        if self.targets == "labels":
            numbers = [label_sets(views.labels)]
            positives = partial(matching_pairs, pairs=len(views.image), numbers=numbers, mask=mask)
            kernel, mask = partial(sigmoid_pairs, positives=positives), None
        return mean_over_rows(
            kernel, views.image[rows], views.text, views.scale, views.bias, mask, rows.start
        )
