"""Confusion matrix, scores and curves by class: by hand, and as scikit-learn has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import (
    auc,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from domainclip.evaluation.metrics.class_diagnostics import (
    of_multi_label,
    of_single_label,
    operating_point,
)
from domainclip.evaluation.metrics.class_hierarchy import ClassHierarchy
from domainclip.evaluation.metrics.decisions import top1_shares
from tests.evaluation.probes.array_encoder import items

NAMES = ["cat", "dog", "owl", "yak"]  # no item is a yak


def some(n: int):  # type: ignore[no-untyped-def]
    return items([{"id": f"{i:03d}", "group": f"g{i // 2}"} for i in range(n)])


def _log_odds(logits: np.ndarray) -> np.ndarray:
    return ClassHierarchy(np.eye(logits.shape[1], dtype=bool)).log_odds(logits)


def test_single_label_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 120, p=[0.5, 0.4, 0.1])
    logits = rng.normal(size=(120, 4)) + 1.2 * np.eye(4)[truth]
    odds = _log_odds(logits)
    errors = of_single_label(
        NAMES, some(120), np.arange(120), top1_shares(logits), odds, truth, np.eye(len(NAMES))[truth]
    )
    answers = logits.argmax(axis=1)
    assert errors.confusion is not None
    assert errors.confusion.counts.tolist() == confusion_matrix(truth, answers, labels=range(4)).tolist()
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answers, labels=range(4), zero_division=0
    )
    chances = softmax(logits, axis=1)
    for i, scores in enumerate(errors.classes[:3]):
        assert (scores.name, scores.items, scores.answers) == (NAMES[i], support[i], (answers == i).sum())
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert scores.auroc == pytest.approx(roc_auc_score(truth == i, chances[:, i]))
    absent = errors.classes[3]
    assert (absent.items, absent.groups, absent.answers) == (0, 0, (answers == 3).sum())
    assert absent.answers > 0
    assert np.isnan([absent.recall, absent.precision, absent.f1, absent.auroc]).all()
    assert [curve.name for curve in errors.curves] == NAMES[:3]
    for i, curve in enumerate(errors.curves):
        assert auc(curve.false_positive_rate, curve.sensitivity) == pytest.approx(
            roc_auc_score(truth == i, chances[:, i])
        )
        steps = np.diff(curve.sensitivity) @ curve.precision[1:]
        assert steps == pytest.approx(average_precision_score(truth == i, chances[:, i]))
        assert (curve.prevalence, curve.point) == (pytest.approx((truth == i).mean()), None)


def test_log_odds_do_not_saturate_where_probabilities_do() -> None:
    """At a scale of 100 the softmax of both rows is 1.0 in double precision."""
    logits = np.array([[60.0, 0.0, -5.0], [80.0, 0.0, -5.0]])
    assert softmax(logits, axis=1)[:, 0].tolist() == [1.0, 1.0]
    assert _log_odds(logits)[:, 0] == pytest.approx([60 - np.log1p(np.exp(-5)), 80 - np.log1p(np.exp(-5))])
    soft = np.random.default_rng(1).normal(size=(20, 5))
    assert expit(_log_odds(soft)) == pytest.approx(softmax(soft, axis=1), abs=1e-6)


def test_ties_count_in_parts() -> None:
    """Of 20 cats, all tie between cat and dog: ten answers each; the AUROC of constant scores is one half."""
    truth = np.repeat([0, 1], [20, 10])
    tied = np.zeros((30, 2))
    errors = of_single_label(
        ["cat", "dog"], some(30), np.arange(30), top1_shares(tied), _log_odds(tied), truth, np.eye(2)[truth]
    )
    assert errors.confusion is not None
    assert errors.confusion.counts.tolist() == [[10, 10], [5, 5]]
    cat = errors.classes[0]
    assert (cat.groups, cat.answers, cat.recall, cat.precision, cat.auroc) == (10, 15, 0.5, 2 / 3, 0.5)


def test_multi_label_at_a_threshold_by_hand() -> None:
    """Of 21 items one is unknown: 8 of 10 with fluid and 2 of 10 without are at the threshold or above."""
    scores, labels = np.zeros((21, 2)), np.zeros((21, 2))
    labels[:10, 0] = labels[:9, 1] = 1
    labels[20, 0] = np.nan
    scores[:8, 0] = scores[10:12, 0] = scores[20, 0] = 0.5
    errors = of_multi_label(["fluid", "air"], some(21), scores, labels, {"fluid": 0.5})
    fluid, air = errors.classes
    assert (fluid.items, fluid.groups, fluid.answers) == (10, 5, 10)
    assert (fluid.recall, fluid.precision, fluid.f1, fluid.auroc) == (0.8, 0.8, 0.8, pytest.approx(0.8))
    assert (air.items, errors.confusion) == (9, None)  # too few items for a score, and no threshold
    assert np.isnan([air.answers, air.recall, air.auroc]).all()
    (curve,) = errors.curves
    assert (curve.false_positive_rate.tolist(), curve.sensitivity.tolist()) == ([0, 0.2, 1], [0, 0.8, 1])
    assert curve.precision.tolist() == [0.8, 0.8, 0.5]
    point = curve.point
    assert point is not None
    assert (point.sensitivity, point.specificity, point.prevalence) == (0.8, 0.8, 0.5)
    assert (point.positive_predictive_value, point.negative_predictive_value) == (0.8, 0.8)


def test_predictive_values_are_undefined_without_answers() -> None:
    point = operating_point(np.zeros(4), np.array([True, False, False, False]), 1.0)
    assert np.isnan(point.positive_predictive_value)
    assert (point.sensitivity, point.negative_predictive_value) == (0.0, 0.75)


def test_curves_are_thinned_to_200_points_and_their_ends_stay() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 1000)
    logits = np.stack([np.zeros(1000), rng.normal(size=1000) + truth], axis=1)
    errors = of_single_label(
        ["cat", "dog"],
        some(1000),
        np.arange(1000),
        top1_shares(logits),
        _log_odds(logits),
        truth,
        np.eye(2)[truth],
    )
    curve = errors.curves[1]
    assert len(curve.sensitivity) == len(curve.precision) == len(curve.false_positive_rate) == 200
    assert (curve.sensitivity[0], curve.sensitivity[-1], curve.false_positive_rate[-1]) == (0, 1, 1)
    assert auc(curve.false_positive_rate, curve.sensitivity) == pytest.approx(
        roc_auc_score(truth, logits[:, 1]), abs=0.002
    )
