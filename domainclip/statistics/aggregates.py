"""From per-item scores to figures, for all resamples at once.

Legend: n items, r resamples, c classes, b bins. Scores are (n, …), weights (r, n) say how often each item was
drawn; every function gives r values, NaN where the figure does not exist.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]


def whole(aggregate: Aggregate, scores: np.ndarray) -> float:
    """The figure itself: every item once."""
    return float(aggregate(scores, np.ones((1, len(scores))))[0])


def mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) weighted means of scores (n,)."""
    return ratio_of(weights @ scores, weights.sum(axis=1))


def pooled_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) means over what the items bring: scores (n, 2) are the sum and the number of an item's own."""
    sums = weights @ scores
    return ratio_of(sums[:, 0], sums[:, 1])


def macro_mean(scores: np.ndarray, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(r,) means over the classes, each weighing the same, of the means inside each; `classes` (n,)."""
    weight = by_level(weights, classes)
    return mean_of_defined(ratio_of(by_level(weights * scores, classes), weight))


def macro_f1(scores: np.ndarray, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(r,) means of F1 over the classes that were drawn; scores (n, c) say how surely each is the answer."""
    drawn = by_level(weights, classes)
    own = scores[np.arange(len(scores)), classes]
    answered = weights @ scores[:, np.unique(classes)]
    f1 = ratio_of(2 * by_level(weights * own, classes), drawn + answered)
    return mean_of_defined(np.where(drawn > 0, f1, np.nan))


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
    positive, negative = _sides(scores, weights, labels)
    below = np.cumsum(negative, axis=1) - negative / 2
    return ratio_of((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def average_precision(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) areas under the precision-recall steps, equal scores being one step; NaN without positives.

    Unlike a sum over sorted rows it does not depend on the order of ties: all equal gives the prevalence.
    """
    positive, negative = (side[:, ::-1] for side in _sides(scores, weights, labels))
    found = np.cumsum(positive, axis=1)
    precision = ratio_of(found, found + np.cumsum(negative, axis=1))
    total = positive.sum(axis=1)
    return ratio_of((positive * np.where(found > 0, precision, 0.0)).sum(axis=1), total)


def macro_auroc(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) means of the AUROC over the classes that have both sides; scores and labels (n, c)."""
    return over_columns(auroc, scores, weights, labels)


def macro_average_precision(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) means of the average precision over the classes that have positives; scores and labels (n, c)."""
    return over_columns(average_precision, scores, weights, labels)


def over_columns(
    one: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    scores: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """(r,) means over the columns in which the figure exists; scores and labels (n, c)."""
    each = [one(scores[:, i], weights, labels[:, i]) for i in range(scores.shape[1])]
    return mean_of_defined(np.stack(each, axis=1))


def share_among(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(r,) weighted means of scores (n,) over the items whose label is 1: a sensitivity, from answers."""
    kept = weights * (labels == 1)
    return ratio_of(kept @ scores, kept.sum(axis=1))


def calibration_error(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) expected calibration errors: mean over the answers of |confidence - accuracy| of their bin.

    scores (n, 1 + b): how many answers an item gave, then by bin the sum of their confidence less truth.
    """
    sums = weights @ scores
    return ratio_of(np.abs(sums[:, 1:]).sum(axis=1), sums[:, 0])


def by_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(r, n) summed over items of equal level -> (r, number of levels), levels ascending."""
    order = np.argsort(levels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(levels[order]) != 0]) if len(levels) else np.zeros(0, int)
    return np.add.reduceat(values[:, order], starts, axis=1) if len(starts) else np.zeros((len(values), 0))


def ratio_of(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where there is nothing below."""
    ratios: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return ratios


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(r, k) -> (r,) means over what is not NaN."""
    return ratio_of(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def _sides(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of negatives at each distinct score, ascending."""
    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(scores[known], kind="stable")]
    if not len(order):
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    drawn = weights[:, order]
    positive = drawn * labels[order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    if len(starts) == len(order):  # no ties: nothing to sum up
        return positive, drawn - positive
    positive = np.add.reduceat(positive, starts, axis=1)
    return positive, np.add.reduceat(drawn, starts, axis=1) - positive
