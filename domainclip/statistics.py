"""Figures with intervals, from per-item scores: how sure we may be, and whether two models differ.

Legend: n items, g groups, r resamples, c classes.

An aggregate takes scores (n, …) and weights (r, n), how often each item was drawn, and gives r values, NaN
where the figure is undefined. Weights instead of copied rows keep the whole bootstrap vectorised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]

# With g groups that all move one way the sign test reaches p = 2·2⁻ᵍ, so below six groups nothing at all
# can be said at the 95 % level; a bootstrap would still print a narrow interval.
MIN_GROUPS = 6
_CELLS = 2_000_000  # weights held in double precision at once


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; NaN where undefined. `p` stands on differences only."""

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """One figure of both models on the same resamples, and their difference."""

    base: Figure
    adapted: Figure | None
    difference: Figure | None
    groups: int
    undefined: float  # share of the resamples in which the figure does not exist


def compare(
    aggregate: Aggregate,
    base: np.ndarray,
    adapted: np.ndarray | None,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    share: bool = True,
) -> Comparison:
    """Base, adapted and their paired difference: every resample draws the same groups for both.

    `share` says that the figure lies between 0 and 1, as ranks do not.
    """
    weights = bootstrap_weights(groups, resamples, seed)
    count = len(set(groups))
    values = _resampled(aggregate, base, weights)
    undefined = float(np.isnan(values).mean())
    first = _figure(aggregate, base, values, count, share)
    if adapted is None:
        return Comparison(first, None, None, count, undefined)
    others = _resampled(aggregate, adapted, weights)
    second = _figure(aggregate, adapted, others, count, share)
    # Equal sums of thirds may differ in their last bit; such a speck must not exclude zero.
    changes = np.round(others - values, 12)
    low, high = interval(changes) if count >= MIN_GROUPS else (np.nan, np.nan)
    p = p_value(changes) if count >= MIN_GROUPS else np.nan
    change = Figure(float(np.round(second.value - first.value, 12)), low, high, p)
    return Comparison(first, second, change, count, undefined)


def bootstrap_weights(groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """(r, n) float32: how often each item is drawn when whole groups are, with replacement.

    Images of one patient agree with each other; resampling them one by one gives intervals that are too
    narrow by up to the root of the images a patient. Draws go to the sorted groups: order of rows is moot.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    counts = np.empty((resamples, len(names)), dtype=np.float32)
    for row, drawn in enumerate(draws):
        counts[row] = np.bincount(drawn, minlength=len(names))
    return counts[:, member]


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of r bootstrap values; undefined ones are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p of "no difference": twice the share of resamples on the far side of zero.

    One is added above and below, so p is never 0; zeros count for both sides, so equal models give 1.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    far = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (far + 1) / (len(defined) + 1)))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for how many were looked at (Holm 1979); NaN stays and does not count."""
    values = np.asarray(p, dtype=float)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    adjusted, running = values.copy(), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - place) * values[i]))
        adjusted[i] = running
    return [float(value) for value in adjusted]


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) weighted means of scores (n,)."""
    return _ratio(weights @ scores, weights.sum(axis=1))


def macro_mean(scores: np.ndarray, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(r,) means over the classes, each weighing the same, of the means inside each; `classes` (n,)."""
    weight = _by_level(weights, classes)
    return _mean_of_defined(_ratio(_by_level(weights * scores, classes), weight))


def median(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) medians, as if each score were written down as often as its weight says."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    lower = scores[order][np.argmax(reached >= half, axis=1)]
    upper = scores[order][np.argmax(reached > half, axis=1)]
    return np.where(half[:, 0] > 0, (lower + upper) / 2, np.nan)


def auroc(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) chances that a positive scores above a negative, ties counting half; NaN without both.

    `labels` (n,) are 1, 0, or NaN for items whose truth is unknown, which are left out.
    """
    known = ~np.isnan(labels)
    truth, drawn = labels[known], weights[:, known]
    positive, negative = (_by_level(drawn * side, scores[known]) for side in (truth, 1 - truth))
    below = np.cumsum(negative, axis=1) - negative / 2
    return _ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def macro_auroc(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) means of the AUROC over the classes that have both sides; scores and labels (n, c)."""
    each = [auroc(scores[:, i], weights, labels[:, i]) for i in range(scores.shape[1])]
    return _mean_of_defined(np.stack(each, axis=1))


def _figure(aggregate: Aggregate, scores: np.ndarray, values: np.ndarray, groups: int, share: bool) -> Figure:
    value = float(aggregate(scores, np.ones((1, len(scores))))[0])
    if groups < MIN_GROUPS:
        return Figure(value, float("nan"), float("nan"))
    if share and value in (0.0, 1.0) and (scores == value).all():
        # Resampling cannot see beyond a sample in which all are right, or all wrong; Wilson's can.
        return Figure(value, *wilson(value * groups, groups))
    return Figure(value, *interval(values))


def _resampled(aggregate: Aggregate, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    step = max(1, _CELLS // max(1, weights.shape[1]))
    blocks = (weights[i : i + step].astype(np.float64) for i in range(0, len(weights), step))
    return np.concatenate([aggregate(scores, block) for block in blocks])


def _by_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(r, n) summed over items of equal level -> (r, number of levels), levels ascending."""
    order = np.argsort(levels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(levels[order]) != 0]) if len(levels) else np.zeros(0, int)
    return np.add.reduceat(values[:, order], starts, axis=1) if len(starts) else np.zeros((len(values), 0))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    ratios: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return ratios


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    return _ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))
