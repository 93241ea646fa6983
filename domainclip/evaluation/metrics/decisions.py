"""Decisions from class scores: top-1 shares, top-k hits, thresholds."""

from __future__ import annotations

import numpy as np


def top1_shares(scores: np.ndarray) -> np.ndarray:
    """(n, c): how surely each class is the answer; 1, or 1/t for each of t that tie at the top."""
    top = scores == scores.max(axis=1, keepdims=True)
    shares: np.ndarray = top / top.sum(axis=1, keepdims=True)
    return shares


def top_k_hits(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """(n,) chances that the right class is among the first k, ties being broken by lot."""
    own = scores[np.arange(len(scores)), truth][:, None]
    above, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    found: np.ndarray = np.clip((k - above) / tied, 0.0, 1.0)
    return found


def youden_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The threshold with the largest sensitivity + specificity, midway between two scores (Youden 1950).

    An answer is yes at or above it; of equally good ones, the highest. None when all items are of one kind.
    """
    known = ~np.isnan(labels)
    values, positive = scores[known], labels[known] == 1
    if positive.all() or not positive.any():
        return None
    levels, place = np.unique(-values, return_inverse=True)
    levels = -levels  # descending: yes to the first i + 1 levels
    yes, no = (np.cumsum(np.bincount(place[side], minlength=len(levels))) for side in (positive, ~positive))
    best = int(np.argmax(np.round(yes / yes[-1] - no / no[-1], 12)))
    return float(levels[best] if best + 1 == len(levels) else (levels[best] + levels[best + 1]) / 2)
