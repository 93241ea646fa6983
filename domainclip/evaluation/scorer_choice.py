"""The choice of a class scorer among several, on the validation split alone.

Shapes: n items, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from domainclip.evaluation.metrics import decisions
from domainclip.models.evidence_scorer import EvidenceScorer


@dataclass(frozen=True)
class ScorerChoice:
    """The scorer that was chosen, and what it reaches on the validation split."""

    scorer: EvidenceScorer | None  # None: no α above 0 is better than the base
    metric: str
    base: float  # value of the metric of the base
    chosen: float
    tried: int  # pairs of scorer and α

    def facts(self) -> dict[str, Any]:
        """For the report."""
        if self.scorer is None:
            return {
                "class_scorer": f"none: of {self.tried} tried, none improves {self.metric}, {self.base:.3f}"
            }
        return {
            "class_scorer": f"{self.scorer.description}, the best of {self.tried} by {self.metric}: "
            f"{self.base:.3f} to {self.chosen:.3f}"
        }


def choose_scorer(
    scorers: Sequence[EvidenceScorer],
    alphas: Sequence[float],
    images: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    multi_label: bool,
) -> ScorerChoice:
    """The pair of scorer and α with the best metric; of equal ones, the smallest α, then the first scorer.

    `images` (n, d) and `labels` (n, c) of 1, 0 and NaN are of the validation split, `scores` (n, c) those of
    the base for the classes of the scorers, in their order.
    """
    name, measure = selection_measure(multi_label)
    base = measure(np.round(scores, 6), labels)
    evidence = [scorer.evidence(images) for scorer in scorers]
    best, chosen = base, None
    for alpha in sorted(alphas):
        for scorer, rows in zip(scorers, evidence, strict=True):
            value = measure(np.round(scores + alpha * rows, 6), labels)
            if value > best + 1e-9:
                best, chosen = value, scorer.weighted(alpha)
    return ScorerChoice(chosen, f"{name} on validation", base, best, len(alphas) * len(scorers))


def selection_measure(multi_label: bool) -> tuple[str, Callable[[np.ndarray, np.ndarray], float]]:
    """What scores (n, c) with labels (n, c) are chosen by: its name, and the function."""
    return ("macro AUROC", _macro_auroc) if multi_label else ("macro recall", _macro_recall)


def _macro_recall(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean recall of the classes that have items with no other class."""
    rows = np.flatnonzero(np.nansum(labels, axis=1) == 1)
    truth = np.nan_to_num(labels[rows]).argmax(axis=1)
    hits = decisions.top_k_hits(scores[rows], truth)
    return float(np.mean([hits[truth == i].mean() for i in np.unique(truth)]))


def _macro_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean AUROC of the classes with items of both kinds."""
    values = []
    for column, held in zip(scores.T, labels.T, strict=True):
        known = ~np.isnan(held)
        if {0.0, 1.0} <= set(held[known]):
            values.append(roc_auc_score(held[known], column[known]))
    return float(np.mean(values))
