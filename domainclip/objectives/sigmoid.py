"""The sigmoid objective: every image–text combination is a yes-or-no question of its own.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from domainclip.blocks import mean_over_rows, yes_or_no
from domainclip.contracts import Views


@dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """−1/b Σ_ij log σ(z_ij (t s_ij + β)), z = +1 on the diagonal and −1 elsewhere.

    Combinations within a group are neither yes nor no, and are left out. [arXiv:2303.15343]
    """

    citation: ClassVar[str] = "arXiv:2303.15343"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        rows = views.own
        return mean_over_rows(
            yes_or_no, views.image[rows], views.text, views.scale, views.bias, views.group, rows.start
        )
