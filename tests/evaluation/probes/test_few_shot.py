from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.metrics.labelled_examples import Examples, labelled_examples
from domainclip.evaluation.probes.few_shot import FewShot, _draw_shots, _fit_head
from domainclip.evaluation.probes.zero_shot import ZeroShot
from tests.evaluation.probes.array_encoder import CollapsedEncoder
from tests.evaluation.probes.synthetic_sets import clusters, metric_of, metric_value, scores_by_id, shuffled


def test_it_is_a_probe() -> None:
    assert isinstance(FewShot(), Probe)


def test_one_shot_per_class_by_hand() -> None:
    """Two classes in two dimensions, prompts on the axes, one shot each, both on its prompt.

    By symmetry W = [[1+u, -u], [-u, 1+u]] with CE slope -(1-p) on a margin of s(1 + 2u), p its probability.
    The penalty is l·2u² a class with l = p(0), and two classes halve the CE: (1-p) s / 2 = 2 l u.
    """
    support = Examples(np.eye(2), np.eye(2), ["a", "b"], ["a", "b"])
    head = _fit_head(support, np.eye(2), scale=2.0)
    u = head[0, 0] - 1
    start = 1 / (1 + np.exp(-2.0))
    margin = 1 / (1 + np.exp(-2.0 * (1 + 2 * u)))
    assert head == pytest.approx(np.array([[1 + u, -u], [-u, 1 + u]]), abs=1e-5)
    assert u > 0.01
    assert (1 - margin) * 2.0 / 2 == pytest.approx(2 * start * u, abs=1e-4)


def test_the_head_minimises_the_loss() -> None:
    rng = np.random.default_rng(3)
    labels = np.eye(3)[rng.integers(3, size=12)]
    support = Examples(rng.normal(size=(12, 5)), labels, [""] * 12, [""] * 12)
    start = rng.normal(size=(3, 5))
    head = _fit_head(support, start, scale=1.5)

    def loss(weights: np.ndarray) -> float:
        def log_softmax(z: np.ndarray) -> np.ndarray:
            return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

        zero_shot = np.exp(log_softmax(1.5 * support.features @ start.T))
        strength = (labels * zero_shot).sum(0) / labels.sum(0)
        ce = -(labels * log_softmax(1.5 * support.features @ weights.T)).sum(1).mean()
        return float(ce + (strength * ((weights - start) ** 2).sum(1)).sum())

    assert loss(head) < loss(start)
    for _ in range(50):
        assert loss(head) <= loss(head + 0.01 * rng.normal(size=head.shape)) + 1e-9


def test_shots_help_where_prompts_are_wrong() -> None:
    model, data = clusters(n=120, noise=0.2)
    turned = {
        name: list(np.roll(vector, 1)) for name, vector in model.text_vectors.items() if "caption" not in name
    }
    model.text_vectors = {**model.text_vectors, **turned}
    results = FewShot()(model, data)
    curve = [metric_value(results, f"macro_accuracy/{shots}-shot") for shots in (1, 2, 4, 8, 16)]
    assert metric_value(ZeroShot()(model, data), "macro_accuracy") < 0.2
    assert curve[-1] > 0.9
    assert curve[0] <= curve[-1]
    assert metric_value(results, "macro_accuracy") == pytest.approx(np.mean(curve))


def test_images_unrelated_to_the_labels_score_near_chance() -> None:
    model, data = clusters(n=120, noise=50.0)
    results = FewShot(shots=(16,))(model, data)
    assert metric_value(results, "macro_accuracy") == pytest.approx(1 / 3, abs=0.13)


def test_shots_are_nested_and_come_from_different_groups() -> None:
    model, data = clusters(n=60)
    train = labelled_examples(model, data.train, ["class0", "class1", "class2"], 100)
    assert train is not None
    few, more = _draw_shots(train, 4, seed=1), _draw_shots(train, 8, seed=1)
    assert len(few) == 12
    assert set(few) < set(more)
    for label in range(3):
        groups = [train.groups[row] for row in few if train.labels[row, label]]
        assert len(set(groups)) == 4
    assert set(_draw_shots(train, 4, seed=2)) != set(few)


def test_every_group_is_used_once_before_any_twice() -> None:
    labels = np.ones((6, 1))
    train = Examples(np.eye(6), labels, list("abcdef"), ["p", "p", "p", "p", "q", "r"])
    for seed in range(5):
        assert {train.groups[row] for row in _draw_shots(train, 3, seed)} == {"p", "q", "r"}
        assert [train.groups[row] for row in _draw_shots(train, 5, seed)].count("p") == 3


def test_a_collapsed_model_scores_chance() -> None:
    _, data = clusters(n=31)
    results = FewShot()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)
    assert metric_of(results, "macro_accuracy").chance == pytest.approx(1 / 3)


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters(noise=0.7)
    first, second = FewShot()(model, data), FewShot()(model, shuffled(data))
    assert scores_by_id(first, "macro_accuracy") == scores_by_id(second, "macro_accuracy")


@pytest.mark.parametrize(
    ("lack", "why"),
    [
        ("train", "there are no items with one class in train and measured set"),
        ("classes", "there are no two classes, of which each item has one"),
    ],
)
def test_missing_input_is_reported(lack: str, why: str) -> None:
    model, data = clusters()
    results = FewShot()(model, replace(data, **{lack: {} if lack == "classes" else None}))
    assert results.metrics == []
    assert results.details == {"not_measured": why}


def test_unknown_classes_are_negative_for_items_with_another_class() -> None:
    model, data = clusters(n=30)
    expected = FewShot(shots=(2,))(model, data)
    assert data.train is not None
    meta = [json.dumps({"unknown_labels": ["class2"]} if i % 3 == 0 else {}) for i in range(30)]
    train = data.train.remove_columns("meta").add_column("meta", meta)
    results = FewShot(shots=(2,))(model, replace(data, train=train))
    assert metric_value(results, "macro_accuracy") == metric_value(expected, "macro_accuracy")
    assert results.details["training_items"] == {"class0": 10, "class1": 10, "class2": 10}
