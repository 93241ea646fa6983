"""Accuracies and AUROCs of a classifier by hand, with their chance levels."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics.classifier_metrics import (
    classifier_diagnostics,
    classifier_metrics,
    selection_score,
)
from domainclip.evaluation.metrics.labelled_examples import Examples
from domainclip.evaluation.statistics import aggregates
from tests.evaluation.probes.array_encoder import evaluation_set

NAN = float("nan")
SET = evaluation_set([{"id": f"{i}"} for i in range(4)])
SEVERAL = evaluation_set([{"id": f"{i}"} for i in range(4)], multi_label=True)


def examples(labels: list[list[float]]) -> Examples:
    names = [f"t{i}" for i in range(len(labels))]
    return Examples(
        ids=names, groups=names, features=np.zeros((len(labels), 2)), labels=np.array(labels, float)
    )


def test_accuracies_and_their_chance_level() -> None:
    """Items of x, x and y are right, right and wrong; the one with both classes is left out."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    labels = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]])
    train = examples([[0, 1], [0, 1], [1, 0]])  # most are y
    plain, macro = classifier_metrics(SET, ["x", "y"], scores, labels, train)
    assert (plain.name, macro.name) == ("accuracy", "macro_accuracy")
    assert (plain.comparable, macro.comparable) == (True, False)  # no class has ten items
    assert plain.ids == macro.ids == ["0", "1", "2"]
    assert aggregates.point_estimate(macro.aggregate, macro.scores) == 0.5  # 1 of x, 0 of y
    assert aggregates.point_estimate(plain.aggregate, plain.scores) == pytest.approx(2 / 3)
    assert (macro.chance, plain.chance) == (0.5, pytest.approx(1 / 3))  # always y
    assert classifier_metrics(SET, ["x", "y"], scores, np.ones((4, 2)), train) == []


def test_areas_of_the_classes_with_both_sides_in_both_splits() -> None:
    """The first class has one positive in each; the second is always present in training."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.3], [0.99, 0.4]])
    labels = np.array([[1.0, 0], [0, 1], [0, 1], [NAN, 0]])
    train = examples([[1, 1], [0, 1]])
    macro, single = classifier_metrics(SEVERAL, ["x", "y"], scores, labels, train)
    assert [macro.name, single.name] == ["macro_auroc", "auroc/x"]
    assert macro.ids == ["0", "1", "2", "3"]
    assert single.ids == ["0", "1", "2"]  # the truth of the fourth is unknown
    for metric in (macro, single):
        assert aggregates.point_estimate(metric.aggregate, metric.scores) == 0.5  # beats one of two
        assert metric.chance == 0.5
    assert classifier_metrics(SEVERAL, ["x", "y"], scores, labels, examples([[1, 1], [1, 1]])) == []


def test_where_a_fitted_classifier_errs() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    labels = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]])  # the last item has both classes
    errors = classifier_diagnostics(SET, ["x", "y"], scores, labels)
    assert errors.confusion is not None
    assert errors.confusion.classes == ["class 1", "class 2"]  # labels of a corpus that may name people
    assert errors.confusion.counts.tolist() == [[2, 0], [1, 0]]
    several = classifier_diagnostics(SEVERAL, ["x", "y"], scores, labels)
    assert (several.confusion, [scores.items for scores in several.classes]) == (None, [3, 2])


def test_the_score_that_selects_a_classifier() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    one_class = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]])
    assert selection_score(scores, one_class, multi_label=False) == 0.5
    several = np.array([[1.0, 1], [0, 1], [0, 1], [0, 1]])  # the second class has no negative
    assert selection_score(scores, several, multi_label=True) == 1.0
    assert selection_score(-scores, several, multi_label=True) == 0.0
    assert selection_score(scores, np.ones((4, 2)), multi_label=True) == 0.0
