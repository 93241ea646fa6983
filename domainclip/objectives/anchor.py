"""The anchor: what the base said about everything else, kept while the domain is learned.

Legend: m general sentences, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from domainclip.contracts import Views


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """1/m Σ_j ‖y_j − y⁰_j‖², over general sentences y that the corpus does not hold.

    y⁰ is the base's own embedding. The sentences are made of the tokeniser's own words (recipe key
    `prose`), so no general corpus is needed. Distillation of the base into its own adaptation, in
    embedding space. [arXiv:1606.09282]
    """

    citation: ClassVar[str] = "arXiv:1606.09282"
    needs: ClassVar[frozenset[str]] = frozenset({"prose", "anchor_prose"})

    def __call__(self, views: Views) -> Tensor:
        """A scalar between 0 (nothing has moved) and 4."""
        assert views.prose is not None  # the loop fills what `needs` names
        assert views.anchor_prose is not None
        return (views.prose - views.anchor_prose).square().sum(-1).mean()
