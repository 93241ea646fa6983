"""The sigmoid objective: every image–text combination is a yes-or-no question of its own.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import mean_over_rows, sigmoid_pairs
from domainclip.objectives.losses.label_matching import label_sets, same
from domainclip.objectives.losses.ring import mean_around


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Objective):
    """−1/b Σ_ij log σ(z_ij (t s_ij + β)), z = +1 where two belong together and −1 elsewhere.

    `targets: mask`: only an image and its own text belong together; combinations within a group are neither
    yes nor no, and are left out. `targets: labels`: pairs with exactly the same labels, or of one group,
    belong together too. [arXiv:2303.15343]
    """

    citation: ClassVar[str] = "arXiv:2303.15343"
    replaces: ClassVar[str] = "sigmoid"

    targets: Literal["mask", "labels"] = "mask"

    @property
    def needs(self) -> frozenset[str]:
        """The labels, where they say what belongs together."""
        return frozenset({"labels"} if self.targets == "labels" else ())

    @property
    def supports_ring(self) -> bool:
        """Whether texts may come round: yes, as long as labels are not compared."""
        return self.targets == "mask"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        if views.local_only:
            return mean_around(views.image, views.text, views.scale, views.bias, views.group)
        rows, kernel, group = views.local_slice, sigmoid_pairs, views.group
        if self.targets == "labels":
            marks = [views.group, label_sets(views.labels)]
            kernel = partial(sigmoid_pairs, together=partial(same, pairs=len(views.image), marks=marks))
            group = None
        return mean_over_rows(
            kernel, views.image[rows], views.text, views.scale, views.bias, group, rows.start
        )
