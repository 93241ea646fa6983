"""Metrics of zero-shot classification by hand: areas, decisions at thresholds, spread over templates."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics import results
from domainclip.evaluation.metrics.zero_shot_metrics import (
    auroc_and_auprc,
    sensitivity_at_specificities,
    template_spread,
)
from domainclip.evaluation.statistics import aggregates
from tests.evaluation.probes.array_encoder import items

NAN = float("nan")


def value(metric: Metric) -> float:
    return aggregates.point_estimate(metric.aggregate, metric.scores)


def some(n: int):  # type: ignore[no-untyped-def]
    return items([{"id": f"{i:02d}"} for i in range(n)])


def test_areas_and_their_chance_levels() -> None:
    """x: the positive beats two of three; y: one item is unknown, and the positive is last of three."""
    scores = np.array([[0.5, 0.1], [0.9, 0.2], [0.1, 0.3], [0.2, 0.9]])
    labels = np.array([[1.0, 1], [0, 0], [0, 0], [0, NAN]])
    found = {m.name: m for m in auroc_and_auprc(some(4), ["x", "y"], scores, labels, [0, 1], [0, 1], [0, 1])}
    assert list(found) == ["macro_auroc", "macro_auprc", "auroc/x", "auroc/y", "auprc/x", "auprc/y"]
    assert {name: value(metric) for name, metric in found.items()} == pytest.approx(
        {
            **{"macro_auroc": 1 / 3, "macro_auprc": (1 / 2 + 1 / 3) / 2},
            **{"auroc/x": 2 / 3, "auroc/y": 0.0, "auprc/x": 1 / 2, "auprc/y": 1 / 3},
        }
    )
    # Chance is one half of an AUROC, and of an AUPRC the share of the positives among the known items.
    assert {name: metric.chance for name, metric in found.items()} == pytest.approx(
        {
            **{"macro_auroc": 0.5, "macro_auprc": (1 / 4 + 1 / 3) / 2},
            **{"auroc/x": 0.5, "auroc/y": 0.5, "auprc/x": 1 / 4, "auprc/y": 1 / 3},
        }
    )
    assert (len(found["auroc/x"].ids), found["auprc/y"].ids) == (4, ["00", "01", "02"])


def test_sensitivity_at_a_specificity_is_that_of_each_class_and_their_mean() -> None:
    """x has 20 negatives, of which one may be at or above the threshold at 95 %; y has 12, too few for it."""
    scores, labels = np.zeros((32, 2)), np.zeros((32, 2))
    labels[:12, 0], labels[:20, 1] = 1, 1
    scores[:12, 0] = np.arange(12) + 0.5  # 0.5 to 11.5
    scores[12:, 0] = np.arange(20) - 9  # the highest are 10 and 9: above 9 lie 3 of 12
    scores[:20, 1] = 1
    metrics = sensitivity_at_specificities(some(32), ["x", "y"], scores, labels, [0, 1])
    found = {m.name: m for m in metrics}
    assert {name: value(metric) for name, metric in found.items()} == pytest.approx(
        {
            "macro_sensitivity_at_90_percent_specificity": (4 / 12 + 1) / 2,
            "sensitivity_at_90_percent_specificity/x": 4 / 12,
            "sensitivity_at_90_percent_specificity/y": 1.0,
            "sensitivity_at_95_percent_specificity/x": 3 / 12,
            "sensitivity_at_95_percent_specificity/y": 1.0,
        }
    )
    assert found["sensitivity_at_95_percent_specificity/x"].chance == pytest.approx(0.05)
    assert all(metric.comparable for metric in found.values())


def test_the_spread_over_templates() -> None:
    """The shares of right answers of three templates are 4/4, 1/4 and 2/4; the median of two is their mean."""
    right = [np.repeat([[1.0], [0.0]], [k, 4 - k], axis=0) * [1, 9] for k in (4, 1, 2)]  # (n, c)

    def first_column(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return aggregates.mean(scores[:, 0], weights)

    make = partial(results.metric, items=some(4), rows=np.arange(4))
    found = template_spread("accuracy", make, right, first_column, 0.25)
    assert [(m.name, value(m), m.chance, m.comparable) for m in found] == [
        ("accuracy_over_templates/lowest", 0.25, 0.25, False),
        ("accuracy_over_templates/median", 0.5, 0.25, True),
        ("accuracy_over_templates/highest", 1.0, 0.25, False),
    ]
    assert [value(m) for m in template_spread("accuracy", make, right[::2], first_column, 0.25)] == [
        0.5,
        0.75,
        1.0,
    ]
    assert template_spread("accuracy", make, right[:1], first_column, 0.25) == []


def test_the_mean_over_all_classes_is_beside_that_over_frequent_ones_and_not_judged() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 3)), (rng.random((30, 3)) < 0.5).astype(float)
    found = {
        m.name: m for m in auroc_and_auprc(some(30), ["x", "y", "z"], scores, labels, [0, 2], [0, 1, 2], [])
    }
    assert list(found) == [
        *("macro_auroc", "macro_auroc_all_classes"),
        *("macro_auprc", "macro_auprc_all_classes"),
    ]
    assert [metric.comparable for metric in found.values()] == [True, False, True, False]
    areas = [roc_auc_score(labels[:, i], scores[:, i]) for i in range(3)]
    assert value(found["macro_auroc"]) == pytest.approx((areas[0] + areas[2]) / 2)
    assert value(found["macro_auroc_all_classes"]) == pytest.approx(np.mean(areas))
    prevalence = labels.mean(axis=0)
    assert found["macro_auprc"].chance == pytest.approx((prevalence[0] + prevalence[2]) / 2)
