"""Intervals and tests in closed form, and p values adjusted for how many were looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binom, norm, rankdata


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share: never too narrow, usually too wide."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.isf(tail, successes + 1, n - successes))
    return low, high


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that items which only one of two models gets right favour neither (McNemar 1947)."""
    changed = gained + lost
    return float(min(1.0, 2 * binom.cdf(min(gained, lost), changed, 0.5))) if changed else 1.0


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC from its value alone [doi:10.1148/radiology.143.1.7063747]."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return float(np.sqrt(variance / (positives * negatives)))


def delong(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """AUROC and its standard error [doi:10.2307/2531595]; items must be independent of each other.

    Scores (n,); labels (n,) are 1 and 0, both there at least twice.
    """
    areas, covariance = _delong(scores[None], labels)
    return float(areas[0]), float(np.sqrt(max(0.0, covariance[0, 0])))


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Difference of two AUROCs on the same items (second less first), its z and its two-sided p."""
    areas, covariance = _delong(np.stack([first, second]), labels)
    change = float(areas[1] - areas[0])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 1e-15:  # both put the items in the same order
        return change, 0.0, 1.0
    z = change / float(np.sqrt(variance))
    return change, z, float(2 * norm.sf(abs(z)))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted so that one false claim among all stays as rare as with a single look (Holm 1979).

    NaN stays and does not count.
    """
    values, order = _ascending(p)
    factors = len(order) - np.arange(len(order))
    values[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    return [float(value) for value in values]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """p values adjusted so that a stated share of the claims at most is false (1995); NaN does not count."""
    values, order = _ascending(p)
    factors = len(order) / (1 + np.arange(len(order)))
    scaled = np.minimum(1.0, factors * values[order])
    values[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return [float(value) for value in values]


def _ascending(p: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(p, dtype=float).copy()
    order = np.argsort(values, kind="stable")
    return values, order[~np.isnan(values[order])]


def _delong(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each of k models, and their covariance (k, k), by midranks [doi:10.1109/LSP.2014.2337313]."""
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores, axis=1)
    among_positives = rankdata(scores[:, positive], axis=1)
    among_negatives = rankdata(scores[:, ~positive], axis=1)
    beaten = (ranks[:, positive] - among_positives) / n  # share of the negatives below each positive
    beating = 1 - (ranks[:, ~positive] - among_negatives) / m
    spread = np.atleast_2d(np.cov(beaten)) / m + np.atleast_2d(np.cov(beating)) / n
    return beaten.mean(axis=1), spread
