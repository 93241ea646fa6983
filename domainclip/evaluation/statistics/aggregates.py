"""Aggregates: from per-item scores to the value of a metric, for all resamples at once.

Legend: n items, r resamples, c classes, b bins. Scores are (n, …); weights (r, n) are how often each item was
drawn; every function returns r values, NaN where the metric is undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.sparse import csr_matrix

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]


def point_estimate(aggregate: Aggregate, scores: np.ndarray) -> float:
    """The value of the metric with every item counted once."""
    return float(aggregate(scores, np.ones((1, len(scores))))[0])


def mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) weighted means of scores (n,)."""
    return ratio_of(weights @ scores, weights.sum(axis=1))


def pooled_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) pooled means: scores (n, 2) are the sum and the number of an item's values."""
    sums = weights @ scores
    return ratio_of(sums[:, 0], sums[:, 1])


def macro_mean(scores: np.ndarray, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(r,) unweighted means over the classes of the means within each class; `classes` (n,)."""
    weight = by_level(weights, classes)
    return mean_of_defined(ratio_of(by_level(weights * scores, classes), weight))


def macro_f1(
    scores: np.ndarray, weights: np.ndarray, classes: np.ndarray, of: np.ndarray | None = None
) -> np.ndarray:
    """(r,) means of F1 over the classes `of` (k,); None: those that have items.

    Scores (n, c) are the shares of each class in the answer. A class that is neither drawn nor answered has
    no F1 and is left out; one that is answered without being drawn has 0.
    """
    counted = np.unique(classes) if of is None else of
    drawn = weights @ (classes[:, None] == counted)
    correct = weights @ np.where(classes[:, None] == counted, scores[:, counted], 0.0)
    return mean_of_defined(ratio_of(2 * correct, drawn + weights @ scores[:, counted]))


def median(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) weighted medians: each score counted as often as its weight."""
    order = np.argsort(scores, kind="stable")
    cumulative = np.cumsum(weights[:, order], axis=1)
    half = cumulative[:, -1:] / 2
    lower = scores[order][np.argmax(cumulative >= half, axis=1)]
    upper = scores[order][np.argmax(cumulative > half, axis=1)]
    return np.where(half[:, 0] > 0, (lower + upper) / 2, np.nan)


def auroc(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) probabilities that a positive scores above a negative, ties counted half; NaN without both.

    `labels` (n,) are 1, 0, or NaN for items whose truth is unknown, which are left out.
    """
    positive, untied, tied = _curve(scores, labels).drawn(weights)
    below = np.cumsum(untied[:-1] + tied, axis=0) - tied / 2
    negatives = untied.sum(axis=0) + tied.sum(axis=0)
    return ratio_of(np.einsum("lr,lr->r", positive, below), positive.sum(axis=0) * negatives)


def average_precision(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) areas under the precision-recall steps, equal scores as one step; NaN without positives.

    Unlike a sum over sorted rows it does not depend on the order of ties: equal scores give the prevalence.
    """
    positive, untied, tied = _curve(scores, labels).drawn(weights)
    retrieved = np.cumsum(positive[::-1], axis=0)
    answered = retrieved + np.cumsum((untied[1:] + tied)[::-1], axis=0)
    precision = np.where(retrieved > 0, ratio_of(retrieved, answered), 0.0)
    return ratio_of(np.einsum("lr,lr->r", positive[::-1], precision), positive.sum(axis=0))


def sensitivity_at_specificity(
    scores: np.ndarray, weights: np.ndarray, labels: np.ndarray, specificity: float
) -> np.ndarray:
    """(r,) shares of the positives above a threshold that the given share of the negatives lies below.

    The threshold is that of each resample: the lowest at which at most 1 - specificity of the drawn negatives
    are at or above it. Where positives tie with the negatives at this border, as many of them count as of
    those negatives are still allowed, so a model without knowledge has 1 - specificity: the curve is straight
    between two thresholds, as the AUROC counts it. NaN without positives or negatives.
    """
    positive, untied, tied = _curve(scores, labels).drawn(weights)
    negatives = untied.sum(axis=0) + tied.sum(axis=0)
    above = negatives - np.cumsum(untied[:-1] + tied, axis=0)
    room = np.round((1 - specificity) * negatives, 9) - above
    share = np.where(tied > 0, np.clip(room / np.maximum(tied, 1), 0, 1), room >= 0)
    sensitivity = ratio_of(np.einsum("lr,lr->r", positive, share), positive.sum(axis=0))
    return np.where(negatives > 0, sensitivity, np.nan)


def macro_auroc(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) means of the AUROC over the classes with positives and negatives; scores and labels (n, c)."""
    return over_columns(auroc, scores, weights, labels)


def macro_average_precision(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) means of the average precision over the classes with positives; scores and labels (n, c)."""
    return over_columns(average_precision, scores, weights, labels)


def macro_sensitivity_at_specificity(
    scores: np.ndarray, weights: np.ndarray, labels: np.ndarray, specificity: float
) -> np.ndarray:
    """(r,) means of that sensitivity over the classes with positives and negatives; (n, c) as above."""
    return over_columns(partial(sensitivity_at_specificity, specificity=specificity), scores, weights, labels)


def over_columns(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    scores: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """(r,) means over the columns in which the metric is defined; scores and labels (n, c)."""
    each = [metric(scores[:, i], weights, labels[:, i]) for i in range(scores.shape[1])]
    return mean_of_defined(np.stack(each, axis=1))


def calibration_error(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) expected calibration errors: mean over the answers of |confidence - accuracy| of their bin.

    scores (n, 1 + b): the number of answers of an item, then by bin the sum of confidence minus truth.
    """
    sums = weights @ scores
    return ratio_of(np.abs(sums[:, 1:]).sum(axis=1), sums[:, 0])


def by_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(r, n) summed over items of equal level -> (r, number of levels), levels ascending."""
    order = np.argsort(levels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(levels[order]) != 0]) if len(levels) else np.zeros(0, int)
    return np.add.reduceat(values[:, order], starts, axis=1) if len(starts) else np.zeros((len(values), 0))


def ratio_of(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where `below` is 0."""
    ratios: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return ratios


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(r, k) -> (r,) means of the values that are not NaN."""
    return ratio_of(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


@dataclass(frozen=True)
class _Curve:
    """The items at each of the l distinct scores of positives, ascending; the same for all resamples."""

    positives: csr_matrix  # (l, n) the positives with that score
    untied: csr_matrix  # (l + 1, n) the negatives below the first, between two, and above the last score
    tied: csr_matrix  # (l, n) the negatives with that score

    def drawn(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(l, r), (l + 1, r) and (l, r): how often those items were drawn."""
        across = np.ascontiguousarray(weights.T, dtype=np.float64)
        return self.positives @ across, self.untied @ across, self.tied @ across


def _curve(scores: np.ndarray, labels: np.ndarray) -> _Curve:
    return _sorted(scores.astype(np.float64).tobytes(), labels.astype(np.float64).tobytes())


@lru_cache(maxsize=64)
def _sorted(scores_bytes: bytes, labels_bytes: bytes) -> _Curve:
    """Cached by content: all blocks of resamples need the same curves, and sorting costs more than adding."""
    scores, labels = np.frombuffer(scores_bytes), np.frombuffer(labels_bytes)
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    levels, level = np.unique(scores[positives], return_inverse=True)
    above = np.searchsorted(levels, scores[negatives], side="right")
    tied = above != np.searchsorted(levels, scores[negatives], side="left")

    def members(rows: np.ndarray, level: np.ndarray, height: int) -> csr_matrix:
        return csr_matrix((np.ones(len(rows)), (level, rows)), shape=(height, len(scores)))

    return _Curve(
        members(positives, level, len(levels)),
        members(negatives[~tied], above[~tied], len(levels) + 1),
        members(negatives[tied], above[tied] - 1, len(levels)),
    )


def column_means(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r, k) the mean of each column of scores (n, k) over the items where it is not NaN."""
    defined = ~np.isnan(scores)
    return ratio_of(weights @ np.where(defined, scores, 0.0), weights @ defined)


def mean_of_columns(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) means of the column means."""
    return mean_of_defined(column_means(scores, weights))
