"""Whether pictures of one kind lie near each other: mean average precision of image to image search.

Legend: n items, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainclip.evaluation.metrics.ranking import BLOCK, precision_terms
from domainclip.seeding import sample

if TYPE_CHECKING:
    from datasets import Dataset

MOST = 5000  # pictures; each query sorts the whole gallery


@dataclass(frozen=True)
class Alike:
    """Average precision of each query, and what a model that knows nothing reaches for it."""

    rows: np.ndarray  # where the queries stand in the set
    scores: np.ndarray
    blind: np.ndarray
    truth: str  # "label" or "group"
    gallery: int


def alike(images: np.ndarray, items: Dataset, seed: int) -> Alike | None:
    """Queries with at least one other picture of their kind; None when there is none.

    A kind is a label where the corpus has labels; then pictures of the query's own group (patient, object)
    are neither right nor wrong but left out, for they are found without knowing the kind. Without labels
    a kind is the group. Images (n, d).
    """
    ids = list(items["id"])
    kept = np.array(sorted(sample(ids, MOST, "alike", seed)))
    group = np.unique(np.asarray(list(items["group"]), dtype=str)[kept], return_inverse=True)[1]
    labels = list(items["labels"])
    held = [labels[row] for row in kept]
    classes = {name: i for i, name in enumerate(sorted({name for names in held for name in names}))}
    marks = np.zeros((len(kept), len(classes)))
    for row, names in enumerate(held):
        marks[row, [classes[name] for name in names]] = 1
    vectors = images[kept].astype(np.float64)
    rows, scores, blind = [], [], []
    for start in range(0, len(kept), BLOCK):
        block = slice(start, start + BLOCK)
        cosines = np.round(vectors[block] @ vectors.T, 6)
        same, kin = group[block, None] == group[None], marks[block] @ marks.T > 0
        for i, row in enumerate(range(start, min(start + BLOCK, len(kept)))):
            others = ~same[i] if classes else np.arange(len(kept)) != row
            right = kin[i][others] if classes else same[i][others]
            if right.any():
                rows.append(kept[row])
                scores.append(_precision(cosines[i][others], right))
                one_tie = np.array([0, len(right), 0, right.sum()])
                blind.append(float(precision_terms(*one_tie) / right.sum()))
    if not rows:
        return None
    truth = "label" if classes else "group"
    return Alike(np.array(rows), np.array(scores), np.array(blind), truth, len(kept))


def _precision(scores: np.ndarray, right: np.ndarray) -> float:
    """Expected average precision with ties broken by lot."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    tied = np.diff(np.r_[starts, len(order)])
    good = np.add.reduceat(right[order].astype(np.float64), starts)
    there = good > 0  # a tie of wrong answers adds nothing
    earlier = np.cumsum(good) - good
    return float(precision_terms(starts[there], tied[there], earlier[there], good[there]).sum() / right.sum())
