"""Cluster bootstrap: whole groups are drawn with replacement; intervals and p values from the resamples.

Legend: n items, g groups, r resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from domainclip.evaluation.statistics.aggregates import Aggregate

_CELLS = 500_000  # weights in double precision at once: few enough to stay in the processor's cache


def weight_blocks(
    groups: Sequence[str], resamples: int, seed: int, cells: int = _CELLS
) -> Iterator[np.ndarray]:
    """Blocks (…, n) of how often each item is drawn when whole groups are drawn; r rows in all.

    Images of one patient agree with each other; resampling them one by one gives intervals that are too
    narrow by up to √(images per patient). Groups are sorted before drawing, so the order of rows has no
    effect; the size of the blocks has none either.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    g, rng = len(names), np.random.default_rng(seed)
    step = max(1, cells // max(1, len(member)))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(g, size=(rows, g)) + g * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * g).reshape(rows, g)
        yield counts[:, member].astype(np.float64)


def resampled(
    aggregate: Aggregate, models: Sequence[np.ndarray], groups: Sequence[str], resamples: int, seed: int
) -> list[np.ndarray]:
    """(r,) values of the metric for the scores of each model; all models share the resamples."""
    blocks = [
        [aggregate(scores, weights) for scores in models]
        for weights in weight_blocks(groups, resamples, seed)
    ]
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def jackknife(
    aggregate: Aggregate, models: Sequence[np.ndarray], groups: Sequence[str], most: int = 100
) -> list[np.ndarray]:
    """Values of the metric for each model with one group after the other left out.

    With more than `most` groups, several are left out together, so that there are `most` values.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    turn = (np.arange(len(names)) % most)[member]
    turns = np.arange(min(most, len(names)))
    step = max(1, _CELLS // max(1, len(member)))
    blocks = []
    for start in range(0, len(turns), step):
        weights = (turn != turns[start : start + step, None]).astype(np.float64)
        blocks.append([aggregate(scores, weights) for scores in models])
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def degrees_of_freedom(left_out: np.ndarray, groups: int) -> float:
    """Degrees of freedom of a metric's spread over g groups, from its jackknife values.

    They are g - 1 when all groups have equal influence, and fewer when some have much more: large groups, or
    the few positives of an AUROC. From the variance of a variance, as in Satterthwaite's formula. The result
    is at least 10, or half of g - 1, since rare mistakes look like strong influence.
    """
    influence = left_out[~np.isnan(left_out)]
    influence = influence - influence.mean() if len(influence) else influence
    spread = (influence**2).sum()
    excess = (influence**4).sum() - spread**2 / max(1, len(influence))
    df = 2 * spread**2 / excess if excess > 1e-12 * spread**2 else np.inf
    return float(np.clip(df, min(10.0, (groups - 1) / 2), groups - 1))


def resampled_variance(values: np.ndarray, df: float) -> float:
    """The variance of a metric from r bootstrap values, without undefined ones; NaN without any.

    Resampling g groups gives a spread that is too small by √((g-1)/g).
    """
    defined = values[~np.isnan(values)]
    return float(defined.var()) * (df + 1) / df if len(defined) else float("nan")


def interval(values: np.ndarray, level: float = 0.95, df: float | None = None) -> tuple[float, float]:
    """Percentile interval of r bootstrap values, without undefined ones.

    Resampling g groups gives a spread that is too small by √((g-1)/g), and normal tails where Student's t
    applies. With degrees of freedom the percentiles are moved outwards by both, which matters below about 50
    groups: the expanded percentile interval of Hesterberg [arXiv:1411.5279].
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = float(norm.sf(_reach(level, df)))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(
    values: np.ndarray, value: float, df: float, level: float = 0.95, factor: float = 1.0
) -> tuple[float, float]:
    """Interval of a share: Student's t on the logit scale, with the spread of the r bootstrap values.

    Near 0 and 1 a share is skewed, and percentiles correct too little for it; on the logit scale it is less
    skewed. The interval always contains the value, which percentiles of a biased metric may not. `factor`
    widens the spread.
    """
    defined = values[~np.isnan(values)]
    spread = float(defined.std()) if len(defined) else 0.0
    if not 0 < value < 1 or spread == 0 or defined.min() < 0 or defined.max() > 1:
        return interval(values, level, df)
    reach = _reach(level, df) * factor * spread / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-reach, reach]))
    return float(low), float(high)


def bca(
    values: np.ndarray, value: float, left_out: np.ndarray, level: float = 0.95, df: float | None = None
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated interval (Efron 1987) from bootstrap and jackknife values.

    With degrees of freedom it is expanded like `interval`. None where it does not exist: all bootstrap values
    lie on one side of the value, or the metric is undefined when some group is left out.
    """
    defined = values[~np.isnan(values)]
    below = ((defined < value).mean() + (defined <= value).mean()) / 2 if len(defined) else 0.0
    influence = left_out.mean() - left_out
    spread = (influence**2).sum()
    if not 0 < below < 1 or not spread > 0:  # NaN among the jackknife values: no spread either
        return None
    bias, skew = float(norm.ppf(below)), float((influence**3).sum() / (6 * spread**1.5))
    shifted = bias + _reach(level, df) * np.array([-1, 1])
    low, high = np.quantile(defined, norm.cdf(bias + shifted / (1 - skew * shifted)))
    return float(low), float(high)


def p_value(differences: np.ndarray, df: float | None = None) -> float:
    """Two-sided p of "no difference": twice the share of resamples on the other side of zero.

    One is added to numerator and denominator, so p is never 0; zeros count for both sides, so equal models
    give 1. With degrees of freedom it is expanded as the interval is, so that both agree.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    far = min((defined <= 0).sum(), (defined >= 0).sum())
    p = float(min(1.0, 2 * (far + 1) / (len(defined) + 1)))
    return p if df is None else float(2 * t.sf(norm.isf(p / 2) * np.sqrt(df / (df + 1)), df))


def _reach(level: float, df: float | None) -> float:
    """Half the width of an interval, in standard deviations of the bootstrap values."""
    if df is None:
        return float(norm.ppf((1 + level) / 2))
    return float(t.ppf((1 + level) / 2, df) * np.sqrt((df + 1) / df))
