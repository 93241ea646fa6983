from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domainclip.data.cards import Prompts
from domainclip.evaluation.metrics import decisions, zero_shot_scores
from domainclip.evaluation.metrics import labels as metrics_labels
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set, items


def model() -> ArrayEncoder:
    return ArrayEncoder({"0": [1, 0], "1": [0, 1]}, {"a": [1, 0], "b": [0, 1], "c": [1, 1]})


def test_class_vectors_by_hand() -> None:
    normalised = zero_shot_scores.class_vectors(model(), [["a", "b"], ["b"]])
    assert normalised == pytest.approx(np.array([[2**-0.5, 2**-0.5], [0, 1]]), abs=1e-7)
    mean_of_scores = zero_shot_scores.class_vectors(model(), [["a", "b"], ["b"]], "mean_of_scores")
    assert mean_of_scores == pytest.approx(np.array([[0.5, 0.5], [0, 1]]))


def test_margins_are_positive_minus_negative() -> None:
    classes = {"x": Prompts(positive=["a"], negative=["b"]), "y": Prompts(positive=["c"])}
    margins = zero_shot_scores.class_margins(model(), items([{"id": "0"}, {"id": "1"}]), classes)
    assert margins == pytest.approx(np.array([[1, 0.707107], [-1, 0.707107]]))


def test_margins_by_template() -> None:
    classes = {"x": Prompts(positive=["a", "c"], negative=["b", "a"]), "y": Prompts(positive=["b", "a"])}
    data = items([{"id": "0"}, {"id": "1"}])
    first, second = zero_shot_scores.margins_by_template(model(), data, classes)
    assert first == pytest.approx(np.array([[1, 0], [-1, 1]]))
    assert second == pytest.approx(np.array([[-0.292893, 1], [0.707107, 0]]))
    uneven = {**classes, "y": Prompts(positive=["b"])}
    assert zero_shot_scores.margins_by_template(model(), data, uneven) == []
    assert zero_shot_scores.margins_by_template(model(), data, {"y": Prompts(positive=["b"])}) == []


def test_scores_have_six_decimals() -> None:
    """1/√2 and its differences, exactly: closer values are ties."""
    data, half = items([{"id": "0"}]), {"x": Prompts(positive=["c"], negative=["b"])}
    assert zero_shot_scores.cosines(model(), data, np.array([[0.5**0.5, 0.5**0.5]])).tolist() == [[0.707107]]
    assert zero_shot_scores.class_margins(model(), data, half).tolist() == [[0.707107]]
    two = {"x": Prompts(positive=["c", "a"], negative=["a", "c"])}
    first, second = zero_shot_scores.margins_by_template(model(), data, two)
    assert (first.tolist(), second.tolist()) == ([[-0.292893]], [[0.292893]])


def test_names_of_the_classes() -> None:
    """Those of the card, else the labels of the training split; sorted."""
    rows = [{"id": "0", "labels": ["owl", "cat"]}, {"id": "1", "labels": ["cat"]}]
    data = evaluation_set(rows)
    assert metrics_labels.class_names(data) == []
    assert metrics_labels.class_names(replace(data, train=items(rows))) == ["cat", "owl"]
    named = evaluation_set(rows, {"zebra": {"positive": ["a zebra"]}, "ant": {"positive": ["an ant"]}})
    assert metrics_labels.class_names(replace(named, train=items(rows))) == ["ant", "zebra"]


def test_classes_with_positive_and_negative_items() -> None:
    labels = np.array([[1.0, 1, 0, 1, np.nan], [0, 1, 0, np.nan, 0], [1, 1, 0, 1, np.nan]])
    assert metrics_labels.has_both_classes(labels).tolist() == [True, False, False, False, False]


def test_single_label_items_and_label_matrix() -> None:
    rows = items(
        [
            {"id": "0", "labels": ["x"]},
            {"id": "1", "labels": ["x", "y"]},
            {"id": "2", "labels": ["other", "y"]},
            {"id": "3", "meta": {"unknown_labels": ["y", "other"]}},
        ]
    )
    chosen, truth = metrics_labels.single_label_items(rows, ["x", "y"])
    assert (chosen.tolist(), truth.tolist()) == ([0, 2], [0, 1])
    several = metrics_labels.label_matrix(rows, ["x", "y"])
    assert several[:3].tolist() == [[1, 0], [1, 1], [0, 1]]
    assert several[3, 0] == 0
    assert np.isnan(several[3, 1])


def test_ties_share_the_hit() -> None:
    scores = np.array([[3, 3, 1, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    truth = np.array([0, 2, 0])
    assert decisions.top_k_hits(scores, truth).tolist() == [0.5, 0.25, 0]
    assert decisions.top_k_hits(scores, truth, 3).tolist() == [1, 0.75, 0]
    assert decisions.top_k_hits(scores, truth, 4).tolist() == [1, 1, 1]
    assert decisions.top1_shares(scores).tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4, [0, 0, 0, 1]]


def test_youden() -> None:
    labels = np.array([1.0, 1, 0, 0, np.nan])
    assert decisions.youden_threshold(np.array([0.8, 0.4, 0.2, -0.6, 99]), labels) == pytest.approx(0.3)
    assert decisions.youden_threshold(np.array([0.2, 0.9, 0.5, 0.1, 99]), labels) == pytest.approx(
        0.7
    )  # the higher of two optima
    assert (
        decisions.youden_threshold(np.ones(4), labels[:4]) == 1.0
    )  # equal scores: all are answered positive
    assert decisions.youden_threshold(np.ones(2), np.ones(2)) is None
    assert decisions.youden_threshold(np.ones(2), np.array([0.0, np.nan])) is None
