from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.linear_probe import LinearProbe
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set, items
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    clusters,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)


def test_it_is_a_probe() -> None:
    assert isinstance(LinearProbe(), Probe)


def test_it_equals_scikit_learn_with_the_chosen_penalty() -> None:
    model, data = clusters(noise=0.6)
    results = LinearProbe()(model, data)
    strength = results.details["inverse_penalty"]
    x = np.concatenate([model.images(data.train), model.images(data.validation)])
    y = [labels[0] for labels in [*data.train["labels"], *data.validation["labels"]]]
    oracle = LogisticRegression(C=strength, max_iter=300).fit(x, y)
    expected = oracle.predict(model.images(data.items)) == [labels[0] for labels in data.items["labels"]]
    assert 0.4 < expected.mean() < 1
    assert metric_value(results, "accuracy") == pytest.approx(expected.mean())
    assert metric_of(results, "accuracy").scores.tolist() == expected.tolist()


def test_the_penalty_is_chosen_on_the_validation_split() -> None:
    model, data = clusters(noise=0.6)
    results = LinearProbe()(model, data)
    tried = results.details["tried"]
    assert results.details["chosen_on"] == "validation"
    assert results.details["training_items"] == 120
    assert len(tried) >= 7
    best = max(tried.values())
    first = min((float(name) for name, value in tried.items() if value == best))
    assert results.details["inverse_penalty"] == pytest.approx(first, rel=1e-2)


def test_a_linear_classifier_learns_classes_without_prompts() -> None:
    model, data = clusters(noise=0.2)
    model.text_vectors = {name: [0.0] * 7 + [1.0] for name in model.text_vectors}
    assert metric_value(LinearProbe()(model, data), "macro_accuracy") > 0.95


def test_images_unrelated_to_the_labels_score_near_chance() -> None:
    model, data = clusters(n=120, noise=50.0)
    assert metric_value(LinearProbe()(model, data), "macro_accuracy") == pytest.approx(1 / 3, abs=0.13)


def test_a_collapsed_model_scores_chance() -> None:
    _, data = clusters()
    results = LinearProbe()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)
    assert metric_of(results, "accuracy").chance == pytest.approx(1 / 3)


def test_chance_level_is_that_of_the_majority_class() -> None:
    rows = [{"id": f"{i}", "labels": ["cat" if i < 6 else "dog"]} for i in range(10)]
    data = replace(evaluation_set(rows, {"cat": "a cat", "dog": "a dog"}), train=items(rows))
    results = LinearProbe()(CollapsedEncoder(), data)
    assert metric_of(results, "accuracy").chance == metric_value(results, "accuracy") == 0.6
    assert metric_of(results, "macro_accuracy").chance == metric_value(results, "macro_accuracy") == 0.5


def test_without_a_validation_split_a_fifth_of_the_groups_is_held_back() -> None:
    model, data = clusters()
    results = LinearProbe()(model, replace(data, validation=None))
    assert results.details["chosen_on"] == "a fifth of train, by group"
    assert results.details["training_items"] == 60


def test_multi_label_gives_auroc() -> None:
    rng = np.random.default_rng(1)
    images = {f"{split}{i}": rng.normal(size=5) for split in "abc" for i in range(40)}

    def rows(split: str) -> list[dict[str, object]]:
        held = [
            [name for j, name in enumerate(["x", "y"]) if images[f"{split}{i}"][j] > 0] for i in range(40)
        ]
        unknown = [{"unknown_labels": ["x"]} if i == 0 else {} for i in range(40)]
        return [
            {"id": f"{split}{i}", "labels": [n for n in held[i] if i or n != "x"], "meta": unknown[i]}
            for i in range(40)
        ]

    data = evaluation_set(rows("a"), {"x": "an x", "y": "a y", "z": "a z"}, multi_label=True)
    data = replace(data, train=items(rows("b")), validation=items(rows("c")))
    results = LinearProbe()(WordEncoder(images), data)
    assert [metric.name for metric in results.metrics] == ["macro_auroc", "auroc/x", "auroc/y"]
    assert len(metric_of(results, "auroc/x").ids) == 39
    metric = metric_of(results, "auroc/y")
    truth = ["y" in row["labels"] for row in rows("a")]
    assert metric_value(results, "auroc/y") == pytest.approx(roc_auc_score(truth, metric.scores))
    assert metric_value(results, "macro_auroc") > 0.9


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters(noise=0.6)
    first, second = LinearProbe()(model, data), LinearProbe()(model, shuffled(data))
    assert scores_by_id(first, "accuracy") == scores_by_id(second, "accuracy")
    assert first.details == second.details


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"train": None}, "there are no training items"),
        ({"train": "unlabelled"}, "there are no two classes with training items"),
    ],
)
def test_missing_input_is_reported(change: dict[str, object], why: str) -> None:
    model, data = clusters()
    if change["train"] == "unlabelled":
        change = {"train": items([{"id": "train0000"}])}
    results = LinearProbe()(model, replace(data, **change))
    assert results.metrics == []
    assert results.details == {"not_measured": why}
