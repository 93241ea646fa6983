"""Decisions from class scores: top-1 shares, top-k hits, thresholds."""

from __future__ import annotations

import numpy as np


def top1_shares(scores: np.ndarray) -> np.ndarray:
    """(n, c) share of each class in the top-1 answer: 1, or 1/t for each of t classes that tie."""
    top = scores == scores.max(axis=1, keepdims=True)
    shares: np.ndarray = top / top.sum(axis=1, keepdims=True)
    return shares


def top_k_hits(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """(n,) probability that the true class is among the first k, with ties in random order."""
    true_scores = scores[np.arange(len(scores)), truth][:, None]
    above, tied = (scores > true_scores).sum(axis=1), (scores == true_scores).sum(axis=1)
    chances: np.ndarray = np.clip((k - above) / tied, 0.0, 1.0)
    return chances


def youden_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The threshold with the largest sensitivity + specificity, midway between two scores (Youden 1950).

    An answer is positive at or above it; of equal optima, the highest. None when all known labels are equal.
    """
    known = ~np.isnan(labels)
    values, positive = scores[known], labels[known] == 1
    if positive.all() or not positive.any():
        return None
    levels, level = np.unique(-values, return_inverse=True)
    levels = -levels  # descending: the first i + 1 levels are answered positive
    positives, negatives = (
        np.cumsum(np.bincount(level[side], minlength=len(levels))) for side in (positive, ~positive)
    )
    best = int(np.argmax(np.round(positives / positives[-1] - negatives / negatives[-1], 12)))
    return float(levels[best] if best + 1 == len(levels) else (levels[best] + levels[best + 1]) / 2)
