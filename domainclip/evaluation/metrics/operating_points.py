"""Rates of yes-or-no answers at a threshold that was chosen on validation: sensitivity, predictive values …

Another validation split would have given another threshold. So the answers of a set are those at the chosen
threshold and at those of resampled validation splits, and each resample of the measured groups takes one of
them: the interval of a rate holds the noise of both splits. All of it is description, since at chosen
thresholds two equally good models differ in every rate; what is judged is the AUROC, and the sensitivity at a
given specificity.

Legend: n items, c classes, k resampled thresholds, r resamples, m items of validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics import results
from domainclip.evaluation.metrics.decisions import youden_thresholds
from domainclip.evaluation.statistics.aggregates import mean_of_defined, ratio_of
from domainclip.evaluation.statistics.bootstrap import weight_blocks

_DRAWS, _MOST_CELLS = 200, 50_000_000  # resampled thresholds of a class; answers of a set, one byte each


@dataclass(frozen=True)
class Counts:
    """Right and wrong answers of each kind, (r,) each."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    true_negative: np.ndarray

    def sensitivity(self) -> np.ndarray:
        """(r,) positive answers among the positives, also called recall."""
        return ratio_of(self.true_positive, self.true_positive + self.false_negative)

    def specificity(self) -> np.ndarray:
        """(r,) negative answers among the negatives."""
        return ratio_of(self.true_negative, self.true_negative + self.false_positive)

    def precision(self, prevalence: float | None = None) -> np.ndarray:
        """(r,) positives among the positive answers, also called positive predictive value.

        `prevalence` is the share of positives where the model will be used; None: that of the items.
        """
        if prevalence is None:
            return ratio_of(self.true_positive, self.true_positive + self.false_positive)
        right = prevalence * self.sensitivity()
        return ratio_of(right, right + (1 - prevalence) * (1 - self.specificity()))

    def negative_predictive_value(self, prevalence: float | None = None) -> np.ndarray:
        """(r,) negatives among the negative answers; `prevalence` as in `precision`."""
        if prevalence is None:
            return ratio_of(self.true_negative, self.true_negative + self.false_negative)
        right = (1 - prevalence) * self.specificity()
        return ratio_of(right, right + prevalence * (1 - self.sensitivity()))

    def f1(self) -> np.ndarray:
        """(r,) harmonic means of precision and sensitivity."""
        wrong = self.false_positive + self.false_negative
        return ratio_of(2 * self.true_positive, 2 * self.true_positive + wrong)

    def balanced_accuracy(self) -> np.ndarray:
        """(r,) means of sensitivity and specificity."""
        mean: np.ndarray = (self.sensitivity() + self.specificity()) / 2
        return mean


Rate = Callable[[Counts], np.ndarray]


def answers_at_thresholds(
    scores: np.ndarray,
    thresholds: np.ndarray,
    validation: np.ndarray,
    truth: np.ndarray,
    groups: Sequence[str],
) -> np.ndarray:
    """(n, c, 1 + k) answers of 0 or 1: at the thresholds (c,), then at those of k resampled validations.

    Scores (n, c); the validation split has scores and truth (m, c), and whole groups of it are drawn, the
    same for every model. A resample without both kinds of items of a class keeps its threshold.
    """
    draws = int(np.clip(_MOST_CELLS // max(1, scores.size), 20, _DRAWS))
    weights = np.concatenate(list(weight_blocks(groups, draws, seed=0)))
    answers = np.empty((*scores.shape, 1 + draws), dtype=np.int8)
    for i, threshold in enumerate(thresholds):
        limits = youden_thresholds(validation[:, i], truth[:, i], weights)
        limits = np.append(threshold, np.where(np.isnan(limits), threshold, limits))
        answers[:, i] = scores[:, i, None] >= limits
    return answers


def rate_of_class(
    scores: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    rate: Rate,
    counted: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """(r,) a rate of answers (n, 1 + k), each between 0 and 1; labels (n,), NaN where unknown.

    `counted` is for the interval alone: the items that the rate rests on, as a precision on positive answers.
    """
    sides = np.stack([labels == 1, labels == 0], axis=1).astype(np.float64)
    yes = (weights * scores.T[_columns_of(weights, scores.shape[1])]) @ sides
    right, wrong = yes.T
    positives, negatives = (weights @ sides).T
    return rate(Counts(right, wrong, positives - right, negatives - wrong))


def _rests_on(scores: np.ndarray, labels: np.ndarray, rate: Rate) -> np.ndarray:
    """(n,) the items in the denominator of a rate of answers (n, 1 + k); of any other rate, all."""
    of = rate.func if isinstance(rate, partial) else rate
    if of is Counts.precision:
        return np.asarray(scores[:, 0] > 0)
    if of is Counts.negative_predictive_value:
        return np.asarray(scores[:, 0] < 1)
    if of is Counts.sensitivity:
        return np.asarray(labels == 1)
    if of is Counts.specificity:
        return np.asarray(labels == 0)
    return np.ones(len(labels), dtype=bool)


def mean_rate(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray, rate: Rate) -> np.ndarray:
    """(r,) means of a rate over the classes in which it is defined; answers (n, c, 1 + k), labels (n, c)."""
    each = [rate_of_class(scores[:, i], weights, labels[:, i], rate) for i in range(labels.shape[1])]
    return mean_of_defined(np.stack(each, axis=1))


def _columns_of(weights: np.ndarray, columns: int) -> np.ndarray:
    """(r,) the column of the answers that each resample takes; 0 where no item counts twice.

    The choice depends on the weights alone, so it is the same for every model and rate. Weights of the whole
    set, and of a set without some groups, take the chosen threshold.
    """
    if columns == 1:
        return np.zeros(len(weights), dtype=int)
    drawn = (weights > 0).astype(np.float64)
    # Integers below 2^32: their sums are exact. Only which items are drawn counts, not how many times each.
    factors = np.random.default_rng(0).integers(1, 1 << 32, size=weights.shape[1]).astype(np.float64)
    column = 1 + (drawn @ factors).astype(np.int64) % (columns - 1)
    once = weights.max(axis=1, initial=0) * drawn.sum(axis=1) == weights.sum(axis=1)
    return np.where(once, 0, column)


def rates_at_thresholds(
    items: Dataset,
    names: Sequence[str],
    answers: np.ndarray,
    labels: np.ndarray,
    prevalence: Mapping[str, float],
) -> list[Metric]:
    """Rates of answers (n, c, 1 + k) to labels (n, c): their means over classes, and those of each class.

    A class with fewer than `MIN_ITEMS` items of either kind counts in the means, but has no rates. At chance
    sensitivity and specificity add up to 1, so neither has a chance level; their mean has one: 0.5.
    """
    if not len(names):
        return []
    means: dict[str, tuple[Rate, float | None]] = {
        "macro_balanced_accuracy": (Counts.balanced_accuracy, 0.5),
        "macro_sensitivity": (Counts.sensitivity, None),
        "macro_specificity": (Counts.specificity, None),
    }
    of_class: dict[str, tuple[Rate, float | None]] = {
        "sensitivity": (Counts.sensitivity, None),
        "specificity": (Counts.specificity, None),
    }
    known = np.flatnonzero(~np.isnan(labels).all(axis=1))
    metric = partial(results.metric, items=items, rows=known, scores=answers[known], comparable=False)
    metrics = [
        metric(name, aggregate=partial(mean_rate, labels=labels[known], rate=rate), chance=chance)
        for name, (rate, chance) in means.items()
    ]
    for i, name in enumerate(names):
        if min((labels[:, i] == 1).sum(), (labels[:, i] == 0).sum()) >= results.MIN_ITEMS:
            rates = of_class | predictive_values(labels[:, i], prevalence.get(name))
            metrics += rates_of_class(items, name, answers[:, i], labels[:, i], rates)
    return metrics


def predictive_values(labels: np.ndarray, prevalence: float | None) -> dict[str, tuple[Rate, float | None]]:
    """Predictive values at the prevalence of labels (n,), and at a stated one, with their chance levels."""
    own = float(np.nanmean(labels))
    rates: dict[str, tuple[Rate, float | None]] = {
        "positive_predictive_value": (Counts.precision, own),
        "negative_predictive_value": (Counts.negative_predictive_value, 1 - own),
    }
    return rates | at_stated_prevalence(prevalence)


def at_stated_prevalence(prevalence: float | None) -> dict[str, tuple[Rate, float | None]]:
    """Predictive values at a stated prevalence, with their chance levels; empty without one."""
    if prevalence is None:
        return {}
    negative = partial(Counts.negative_predictive_value, prevalence=prevalence)
    return {
        "positive_predictive_value_at_stated_prevalence": (
            partial(Counts.precision, prevalence=prevalence),
            prevalence,
        ),
        "negative_predictive_value_at_stated_prevalence": (negative, 1 - prevalence),
    }


def rates_of_class(
    items: Dataset,
    name: str,
    answers: np.ndarray,
    labels: np.ndarray,
    rates: Mapping[str, tuple[Rate, float | None]],
) -> list[Metric]:
    """Each rate, with its chance level, of the answers (n, 1 + k) to one class with labels (n,)."""
    known = np.flatnonzero(~np.isnan(labels))
    answers, labels = answers[known], labels[known]  # once: all rates share the array
    metric = partial(results.metric, items=items, rows=known, scores=answers, comparable=False)
    return [
        metric(
            f"{rate_name}/{name}",
            aggregate=partial(
                rate_of_class,
                labels=labels,
                rate=rate,
                counted=partial(_rests_on, labels=labels, rate=rate),
            ),
            chance=chance,
        )
        for rate_name, (rate, chance) in rates.items()
    ]
