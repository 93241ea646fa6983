"""Drawing whole groups with replacement, and reading intervals and p values from what that gives.

Legend: n items, g groups, r resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from domainclip.evaluation.statistics.aggregates import Aggregate

_CELLS = 500_000  # weights held in double precision at once: few enough to stay near the processor


def weight_blocks(
    groups: Sequence[str], resamples: int, seed: int, cells: int = _CELLS
) -> Iterator[np.ndarray]:
    """Blocks (…, n) of how often each item is drawn when whole groups are; r rows in all.

    Images of one patient agree with each other; resampling them one by one gives intervals that are too
    narrow by up to the root of the images a patient. Draws go to the sorted groups: order of rows is moot.
    The stream of draws does not depend on the size of the blocks.
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
    """(r,) values of the figure for the scores of each model, every resample the same for all of them."""
    blocks = [
        [aggregate(scores, weights) for scores in models]
        for weights in weight_blocks(groups, resamples, seed)
    ]
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def jackknife(
    aggregate: Aggregate, models: Sequence[np.ndarray], groups: Sequence[str], most: int = 100
) -> list[np.ndarray]:
    """Values of the figure for each model when one group after the other is left out.

    With more than `most` groups, as many of them are left out together as make `most` turns.
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
    """Degrees of freedom of the spread that a figure shows over g groups, from jackknife values.

    It is g - 1 when all groups pull alike, and fewer when some pull much harder: large ones, or the few
    positives of an AUROC. From the variance of a variance, as in Satterthwaite's formula. It is not
    believed below 10, or below half of g - 1, for rare mistakes look like hard pulls.
    """
    pulls = left_out[~np.isnan(left_out)]
    pulls = pulls - pulls.mean() if len(pulls) else pulls
    spread = (pulls**2).sum()
    excess = (pulls**4).sum() - spread**2 / max(1, len(pulls))
    found = 2 * spread**2 / excess if excess > 1e-12 * spread**2 else np.inf
    return float(np.clip(found, min(10.0, (groups - 1) / 2), groups - 1))


def interval(values: np.ndarray, level: float = 0.95, df: float | None = None) -> tuple[float, float]:
    """Percentile interval of r bootstrap values; undefined ones are left out.

    Resampling g groups shows a spread that is too small by √((g-1)/g), and the tails of the normal
    distribution where Student's belong. With degrees of freedom the percentiles are moved outwards by both,
    which matters below about 50 groups: the expanded percentile interval of Hesterberg [arXiv:1411.5279].
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = float(norm.sf(_reach(level, df)))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(values: np.ndarray, value: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share: Student's on the logit scale, with the spread of the r bootstrap values.

    Near 0 and 1 the values of a share lean to one side, and percentiles follow too little; on the logit scale
    they lean less. Always holds the value, which percentiles of a biased figure may not.
    """
    defined = values[~np.isnan(values)]
    spread = float(defined.std()) if len(defined) else 0.0
    if not 0 < value < 1 or spread == 0 or defined.min() < 0 or defined.max() > 1:
        return interval(values, level, df)
    reach = _reach(level, df) * spread / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-reach, reach]))
    return float(low), float(high)


def bca(
    values: np.ndarray, value: float, left_out: np.ndarray, level: float = 0.95, df: float | None = None
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated interval (Efron 1987) from bootstrap and jackknife values.

    With degrees of freedom it is expanded like `interval`. None where it does not exist: the bootstrap never,
    or always, falls below the value, or the figure is undefined when some group is left out.
    """
    defined = values[~np.isnan(values)]
    below = ((defined < value).mean() + (defined <= value).mean()) / 2 if len(defined) else 0.0
    pulls = left_out.mean() - left_out
    spread = (pulls**2).sum()
    if not 0 < below < 1 or not spread > 0:  # a NaN among the jackknife values is no spread either
        return None
    bias, skew = float(norm.ppf(below)), float((pulls**3).sum() / (6 * spread**1.5))
    shifted = bias + _reach(level, df) * np.array([-1, 1])
    low, high = np.quantile(defined, norm.cdf(bias + shifted / (1 - skew * shifted)))
    return float(low), float(high)


def p_value(differences: np.ndarray, df: float | None = None) -> float:
    """Two-sided p of "no difference": twice the share of resamples on the far side of zero.

    One is added above and below, so p is never 0; zeros count for both sides, so equal models give 1.
    With degrees of freedom it is widened as the expanded interval is, so that both say the same.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    far = min((defined <= 0).sum(), (defined >= 0).sum())
    p = float(min(1.0, 2 * (far + 1) / (len(defined) + 1)))
    return p if df is None else float(2 * t.sf(norm.isf(p / 2) * np.sqrt(df / (df + 1)), df))


def _reach(level: float, df: float | None) -> float:
    """How many standard deviations of the bootstrap values an interval reaches to each side."""
    if df is None:
        return float(norm.ppf((1 + level) / 2))
    return float(t.ppf((1 + level) / 2, df) * np.sqrt((df + 1) / df))
