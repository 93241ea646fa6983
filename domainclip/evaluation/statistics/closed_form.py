"""Intervals and tests in closed form, and p values adjusted for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, norm, rankdata


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share; `successes` may be fractional, since ties count in part."""
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p value from the items that only one of two models gets right (McNemar 1947)."""
    changed = gained + lost
    return float(min(1.0, 2 * binom.cdf(min(gained, lost), changed, 0.5))) if changed else 1.0


def delong_covariance(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (k,) of each of k models and their covariance (k, k), by midranks [doi:10.1109/LSP.2014.2337313].

    Scores (k, n); labels (n,) are 1 and 0, each at least twice; items must be independent of each other.
    """
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores, axis=1)
    among_positives = rankdata(scores[:, positive], axis=1)
    among_negatives = rankdata(scores[:, ~positive], axis=1)
    beaten = (ranks[:, positive] - among_positives) / n  # share of the negatives below each positive
    beating = 1 - (ranks[:, ~positive] - among_negatives) / m
    spread = np.atleast_2d(np.cov(beaten)) / m + np.atleast_2d(np.cov(beating)) / n
    return beaten.mean(axis=1), spread


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Difference of two AUROCs on the same items (second less first), its z and its two-sided p."""
    areas, covariance = delong_covariance(np.stack([first, second]), labels)
    change = float(areas[1] - areas[0])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 1e-15:  # both models rank the items alike
        return change, 0.0, 1.0
    z = change / float(np.sqrt(variance))
    return change, z, float(2 * norm.sf(abs(z)))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted to control the family-wise error rate (Holm 1979); NaN stays and is not counted."""
    values = np.asarray(p, dtype=float).copy()
    order = np.argsort(values, kind="stable")
    order = order[~np.isnan(values[order])]
    factors = len(order) - np.arange(len(order))
    values[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    return [float(value) for value in values]
