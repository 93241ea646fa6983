"""Rates at a threshold that was chosen on validation: by hand, against scikit-learn, and the threshold's noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics.decisions import youden_threshold, youden_thresholds
from domainclip.evaluation.metrics.operating_points import (
    Counts,
    answers_at_thresholds,
    predictive_values,
    rate_of_class,
    rates_at_thresholds,
    rates_of_class,
)
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.closed_form import wilson
from domainclip.evaluation.statistics.estimates import compare_paired
from tests.evaluation.probes.array_encoder import items

NAN = float("nan")


def some(n: int):  # type: ignore[no-untyped-def]
    return items([{"id": f"{i:03d}"} for i in range(n)])


def value(metric: Metric) -> float:
    return aggregates.point_estimate(metric.aggregate, metric.scores)


def test_rates_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    metrics = {m.name: m for m in rates_of_class(
        some(60), "x", answers[:, None], labels.astype(float),
        {"precision": (Counts.precision, None), "f1": (Counts.f1, None)} | predictive_values(labels, None),
    )}  # fmt: skip
    tn, fp, fn, tp = confusion_matrix(labels, answers).ravel()
    assert {name: value(metric) for name, metric in metrics.items()} == pytest.approx(
        {
            "precision/x": precision_score(labels, answers),
            "f1/x": f1_score(labels, answers),
            "positive_predictive_value/x": tp / (tp + fp),
            "negative_predictive_value/x": tn / (tn + fn),
        }
    )
    assert not any(metric.comparable for metric in metrics.values())
    assert metrics["negative_predictive_value/x"].chance == pytest.approx((labels == 0).mean())


def test_means_leave_out_unknown_items_and_rare_classes_have_no_rates_of_their_own() -> None:
    """9 and 10 positives of 21, the last item unknown: 3 of 9 and 5 of 10 are answered, and 2 of 11 negatives."""
    labels, answers = np.zeros((21, 2)), np.zeros((21, 2, 1))
    labels[:9, 0] = labels[:10, 1] = 1
    labels[20] = NAN
    answers[:3, 0] = answers[:5, 1] = answers[9:11, 0] = answers[20] = 1
    found = {m.name: m for m in rates_at_thresholds(some(21), ["x", "y"], answers, labels, {"y": 0.02})}
    assert {name: value(metric) for name, metric in found.items()} == pytest.approx(
        {
            "macro_balanced_accuracy": ((3 / 9 + 5 / 10) / 2 + (9 / 11 + 1) / 2) / 2,
            "macro_sensitivity": (3 / 9 + 5 / 10) / 2,
            "macro_specificity": (9 / 11 + 1) / 2,
            "sensitivity/y": 0.5,
            "specificity/y": 1.0,
            "positive_predictive_value/y": 1.0,
            "negative_predictive_value/y": 10 / 15,
            "positive_predictive_value_at_stated_prevalence/y": 1.0,
            "negative_predictive_value_at_stated_prevalence/y": 0.98 / (0.98 + 0.02 * 0.5),
        }
    )
    assert len(found["macro_sensitivity"].ids) == 20
    assert found["positive_predictive_value_at_stated_prevalence/y"].chance == 0.02
    assert rates_at_thresholds(some(1), [], np.zeros((1, 0, 1)), np.zeros((1, 0)), {}) == []


def test_the_predictive_value_at_a_stated_prevalence() -> None:
    """Sensitivity 0.8 and specificity 0.9 at a prevalence of 2 %: 0.016 right and 0.098 wrong of the positive."""
    counts = Counts(*(np.array([float(n)]) for n in (8, 1, 2, 9)))
    assert counts.precision(0.02)[0] == pytest.approx(0.016 / (0.016 + 0.098))
    assert counts.negative_predictive_value(0.02)[0] == pytest.approx(0.882 / (0.882 + 0.004))
    assert counts.precision(0.5)[0] == pytest.approx(counts.precision()[0])  # the share in the items


@pytest.mark.parametrize("seed", range(5))
def test_a_resampled_threshold_is_that_of_the_repeated_items(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 12, 30).astype(float), rng.integers(0, 2, 30).astype(float)
    labels[3] = NAN
    weights = rng.multinomial(30, np.full(30, 1 / 30), 20)
    again = [youden_threshold(np.repeat(scores, row), np.repeat(labels, row)) for row in weights]
    assert youden_thresholds(scores, labels, weights).tolist() == again


def test_a_resample_without_one_kind_has_no_threshold() -> None:
    weights = np.array([[1, 1, 0], [0, 0, 3], [1, 0, 1]])
    found = youden_thresholds(np.array([1.0, 2, 4]), np.array([0.0, 0, 1]), weights)
    assert found == pytest.approx([NAN, NAN, 2.5], nan_ok=True)


def test_the_interval_holds_the_noise_of_the_threshold() -> None:
    """1,000 items are answered at a threshold from 20 of validation: nearly all noise is the threshold's."""
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, 0.0], 500)
    scores = rng.normal(size=1000) + labels
    truth = np.repeat([1.0, 0.0], 10)
    validation = rng.normal(size=20) + truth
    limit = np.array([youden_threshold(validation, truth)])
    groups = [str(i) for i in range(20)]
    answers = answers_at_thresholds(scores[:, None], limit, validation[:, None], truth[:, None], groups)
    assert answers.shape == (1000, 1, 201)
    assert (answers[:, 0, 0] == (scores >= limit)).all()
    items_, widths = some(1000), []
    for kept in (answers[:, 0], answers[:, 0, :1]):  # with the resampled thresholds, and with the chosen one
        (metric,) = rates_of_class(items_, "x", kept, labels, {"sensitivity": (Counts.sensitivity, None)})
        alone = compare_paired(metric.aggregate, metric.scores, None, metric.groups, 300, 0).base
        assert alone.value == pytest.approx((scores >= limit)[:500].mean())
        assert alone.low < alone.value < alone.high
        widths.append(alone.high - alone.low)
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 500), rel=0.3)
    assert widths[0] > 3 * widths[1]


def test_a_resample_takes_the_same_threshold_for_every_rate_and_model() -> None:
    """Columns 1 to 3 answer everything, nothing and everything: each resample is one of them alone."""
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), 100).astype(float)
    labels = np.tile([1.0, 0.0], 10)
    answers = np.tile(np.array([[0, 1, 0, 1]], dtype=np.int8), (20, 1))
    sensitivity = rate_of_class(answers, weights, labels, Counts.sensitivity)
    assert set(sensitivity) == {0.0, 1.0}
    assert 50 < sensitivity.sum() < 85  # two of three
    assert (sensitivity + rate_of_class(answers, weights, labels, Counts.specificity) == 1).all()
    # Each item once, and a set without one of them, take the chosen threshold.
    once = np.vstack([np.ones(20), 1 - np.eye(20)[0]])
    assert rate_of_class(answers, once, labels, Counts.sensitivity).tolist() == [0, 0]


def test_the_interval_of_a_rate_counts_the_groups_that_it_rests_on() -> None:
    """Of 40 items 8 are answered yes, all rightly: a precision of 1 by 8, not by 40, and none by 5."""
    labels = np.repeat([1.0, 0.0], [20, 20])
    rates = {"precision": (Counts.precision, None), "specificity": (Counts.specificity, None)}
    for yes, low in ((8, wilson(8, 8)[0]), (5, NAN)):
        answers = (np.arange(40) < yes).astype(float)[:, None]
        precision, specificity = (
            compare_paired(metric.aggregate, metric.scores, None, metric.groups, 100, 0).base
            for metric in rates_of_class(some(40), "x", answers, labels, rates)
        )
        assert (precision.value, precision.low) == pytest.approx((1.0, low), nan_ok=True)
        assert specificity.low == pytest.approx(wilson(20, 20)[0])
