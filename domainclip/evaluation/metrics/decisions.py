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
    threshold = float(youden_thresholds(scores, labels, np.ones((1, len(scores))))[0])
    return None if np.isnan(threshold) else threshold


def youden_thresholds(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) such thresholds, of scores and labels (n,) drawn as often as weights (r, n) state.

    NaN where no item of one kind is drawn.
    """
    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(-scores[known], kind="stable")]
    values, drawn = scores[order], weights[:, order]
    # Descending levels of equal scores: the first i + 1 levels are answered positive.
    ends = np.flatnonzero(np.append(np.diff(values) != 0, True)) if len(values) else np.zeros(0, int)
    positive = labels[order] == 1
    positives, negatives = (np.cumsum(drawn * side, axis=1)[:, ends] for side in (positive, ~positive))
    thresholds = np.full(len(weights), np.nan)
    both = np.flatnonzero((positives[:, -1:] > 0).any(axis=1) & (negatives[:, -1:] > 0).any(axis=1))
    if not len(both):
        return thresholds
    positives, negatives = positives[both], negatives[both]
    gain = np.round(positives / positives[:, -1:] - negatives / negatives[:, -1:], 12)
    rows, answered = np.arange(len(both)), positives + negatives
    gain[answered == 0] = -np.inf  # above all items drawn
    best = gain.argmax(axis=1)
    # The next level with an item drawn; the lowest drawn level is its own threshold.
    later = answered > answered[rows, best][:, None]
    following = np.where(later.any(axis=1), later.argmax(axis=1), best)
    levels = values[ends]
    thresholds[both] = (levels[best] + levels[following]) / 2
    return thresholds
