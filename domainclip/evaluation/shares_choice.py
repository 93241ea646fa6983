"""The choice of the shares of an ensemble's members, on the validation split alone.

Shapes: n items, c classes, K members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.scorer_choice import selection_measure

Shares = tuple[float, ...]  # of the members, the base first; their sum is 1


class ReweightedEncoder(Encoder):
    """An ensemble with other weights of its members, of embeddings that are computed once."""

    bias = None  # the same for all pairs: no choice depends on it

    def __init__(self, encoder: Encoder, factors: np.ndarray) -> None:
        """`factors` (d,) on the columns of the embeddings, after which rows have unit length again."""
        self.encoder, self.factors = encoder, factors.astype(np.float32)
        self.scale = 1.0

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length."""
        rows: np.ndarray = self.encoder.images(items) * self.factors
        return rows

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length."""
        rows: np.ndarray = self.encoder.texts(texts) * self.factors
        return rows


@dataclass(frozen=True)
class SharesChoice:
    """The shares that were chosen, and what they reach on the validation split."""

    shares: Shares
    tried: int
    metric: str = ""  # empty: there was nothing to choose by
    alone: float = 0.0  # value of the metric of the base alone
    chosen: float = 0.0

    def facts(self) -> dict[str, Any]:
        """For the report."""
        listed = ", ".join(f"{share:.2f}" for share in self.shares)
        if not self.metric:
            return {"shares": f"{listed}: equal, since no validation item has a class to choose by"}
        return {
            "shares": f"{listed}, the best of {self.tried} by {self.metric}: "
            f"{self.alone:.3f} to {self.chosen:.3f}"
        }


def choose_shares(
    tried: Sequence[Shares], scores: Callable[[Shares], np.ndarray], labels: np.ndarray, multi_label: bool
) -> SharesChoice:
    """The shares with the best metric; of equal ones, those with the largest share of the base.

    `scores` gives (n, c) for some shares, `labels` (n, c) are 1, 0 and NaN, of the validation split.
    """
    name, measure = selection_measure(multi_label)
    ordered = sorted(tried, reverse=True)  # the base alone comes first
    values = [measure(np.round(scores(shares), 6), labels) for shares in ordered]
    best = 0
    for at, value in enumerate(values):
        if value > values[best] + 1e-9:
            best = at
    return SharesChoice(ordered[best], len(ordered), f"{name} on validation", values[0], values[best])
