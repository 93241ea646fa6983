from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from domainclip.contracts import Metric, Probe, Results
from domainclip.errors import RecipeError
from domainclip.probes.zero_shot import ZeroShot
from tests.probes.arrays import ArrayEncoder, CollapsedEncoder, evaluation_set

CLASSES = {"cat": "a cat", "dog": "a dog", "owl": "an owl"}
AXES = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "an owl": [0, 0, 1]}


def figure(results: Results, name: str) -> float:
    metric = metric_of(results, name)
    return float(metric.aggregate(metric.scores, np.ones((1, len(metric.scores))))[0])


def metric_of(results: Results, name: str) -> Metric:
    return next(metric for metric in results.metrics if metric.name == name)


def animals() -> list[dict[str, Any]]:
    return [{"id": f"{i}", "labels": [label]} for i, label in enumerate(["cat", "cat", "cat", "dog"])]


def test_it_is_a_probe() -> None:
    assert isinstance(ZeroShot(), Probe)


def test_accuracies_by_hand() -> None:
    model = ArrayEncoder({"0": [1, 0, 0], "1": [1, 0, 0], "2": [0, 0, 1], "3": [1, 0, 0]}, AXES)
    results = ZeroShot()(model, evaluation_set(animals(), CLASSES))
    assert results.primary == "macro_accuracy"
    assert figure(results, "accuracy") == pytest.approx(2 / 4)
    assert figure(results, "macro_accuracy") == pytest.approx((2 / 3 + 0) / 2)
    assert metric_of(results, "accuracy").chance == pytest.approx(1 / 3)
    assert results.details["classes_without_items"] == 1


def test_a_tie_at_the_top_counts_its_share() -> None:
    model = ArrayEncoder({"0": [1, 1, 0], "1": [1, 1, 1], "2": [0, 1, 1], "3": [0, 1, 0]}, AXES)
    results = ZeroShot()(model, evaluation_set(animals(), CLASSES))
    assert metric_of(results, "accuracy").scores == pytest.approx([1 / 2, 1 / 3, 0, 1])


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i}", "labels": ["cat" if i % 5 else "dog"]} for i in range(30)]
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(rows, CLASSES))
    assert figure(results, "accuracy") == pytest.approx(1 / 3)
    assert figure(results, "macro_accuracy") == pytest.approx(1 / 3)
    several = evaluation_set(rows, CLASSES, multi_label=True)
    assert figure(ZeroShot()(CollapsedEncoder(), several), "macro_auroc") == 0.5


def test_items_without_exactly_one_of_the_classes_are_left_out_and_counted() -> None:
    rows = [*animals(), {"id": "4", "labels": ["cat", "dog"]}, {"id": "5", "labels": ["yak"]}, {"id": "6"}]
    rows.append({"id": "7", "labels": ["yak", "owl"]})
    model = ArrayEncoder({f"{i}": [1, 0, 0] for i in range(8)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    assert metric_of(results, "accuracy").ids == ["0", "1", "2", "3", "7"]
    assert results.details["items_without_exactly_one_class"] == 3


def test_ten_items_make_a_figure_of_their_own() -> None:
    rows = [
        {"id": f"{i:02d}", "labels": ["cat" if i < 10 else "dog"], "group": f"g{i // 2}"} for i in range(19)
    ]
    model = ArrayEncoder({f"{i:02d}": [1, 0, 0] if i % 2 else [0, 1, 0] for i in range(19)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    assert [metric.name for metric in results.metrics] == ["macro_accuracy", "accuracy", "accuracy/cat"]
    assert figure(results, "accuracy/cat") == 0.5
    assert metric_of(results, "accuracy/cat").groups == [f"g{i // 2}" for i in range(10)]


def test_classes_of_few_items_are_named_where_others_have_many() -> None:
    rows = [{"id": f"{i:02d}", "labels": ["cat" if i else "dog"]} for i in range(12)]
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(rows, CLASSES))
    assert results.warnings == ['zero_shot on test: macro accuracy rests on few items of "dog" (1)']
    assert ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), CLASSES)).warnings == []


def test_macro_accuracy_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "dog", "owl"]
    truth = rng.choice(3, 50, p=[0.7, 0.2, 0.1])
    vectors = rng.normal(size=(50, 3)) + 1.5 * np.eye(3)[truth]
    rows = [{"id": f"{i:02d}", "labels": [names[c]]} for i, c in enumerate(truth)]
    model = ArrayEncoder({f"{i:02d}": row.tolist() for i, row in enumerate(vectors)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    assert figure(results, "macro_accuracy") == pytest.approx(
        balanced_accuracy_score(truth, vectors.argmax(axis=1))
    )


def test_the_ensemble_decides_how_prompts_are_joined() -> None:
    # "cat" has two prompts at right angles: their mean is 0.707 long before it is made unit again.
    classes = {"cat": ["a cat", "an owl"], "dog": ["a dog"]}
    rows = [{"id": "0", "labels": ["cat"]}]
    model = ArrayEncoder({"0": [0.6, 0.65, 0.45]}, AXES)
    assert figure(ZeroShot()(model, evaluation_set(rows, classes)), "accuracy") == 1
    plain = ZeroShot(ensemble="mean_of_scores")
    assert figure(plain(model, evaluation_set(rows, classes)), "accuracy") == 0


def test_auroc_of_several_labels_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    classes = {"fluid": {"positive": ["fluid"], "negative": ["no fluid"]}, "air": {"positive": ["air"]}}
    texts = {"fluid": [1, 0, 0], "no fluid": [0, 1, 0], "air": [0, 0, 1]}
    truth, vectors = rng.integers(0, 2, (40, 2)), rng.normal(size=(40, 3))
    labels = [[name for name, holds in zip(classes, row, strict=True) if holds] for row in truth]
    rows = [{"id": f"{i:02d}", "labels": held} for i, held in enumerate(labels)]
    model = ArrayEncoder({f"{i:02d}": row.tolist() for i, row in enumerate(vectors)}, texts)
    results = ZeroShot()(model, evaluation_set(rows, classes, multi_label=True))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    fluid, air = roc_auc_score(truth[:, 0], unit[:, 0] - unit[:, 1]), roc_auc_score(truth[:, 1], unit[:, 2])
    assert results.primary == "macro_auroc"
    assert figure(results, "auroc/fluid") == pytest.approx(fluid)
    assert figure(results, "auroc/air") == pytest.approx(air)
    assert figure(results, "macro_auroc") == pytest.approx((fluid + air) / 2)
    assert metric_of(results, "auroc/air").scores == pytest.approx(100 * unit[:, 2], abs=1e-4)


def test_unknown_labels_and_one_sided_classes() -> None:
    classes = {"fluid": ["fluid"], "air": ["air"]}
    rows: list[dict[str, Any]] = [{"id": f"{i}", "labels": ["fluid"] if i < 2 else []} for i in range(4)]
    rows.append({"id": "4", "meta": {"unknown_labels": ["fluid"]}})
    model = ArrayEncoder({f"{i}": [4 - i, 2] for i in range(5)}, {"fluid": [1, 0], "air": [0, 1]})
    results = ZeroShot()(model, evaluation_set(rows, classes, multi_label=True))
    assert [metric.name for metric in results.metrics] == ["macro_auroc", "auroc/fluid"]
    assert metric_of(results, "auroc/fluid").ids == ["0", "1", "2", "3"]
    assert results.details["unknown_items"] == {"fluid": 1}
    assert results.warnings == ['zero_shot on test: no AUROC for "air": all items are of one kind']


@pytest.mark.parametrize("prompt", ["no No Finding", "not without effusion", "NO  not fluid"])
def test_a_double_negation_is_refused(prompt: str) -> None:
    classes = {"normal": {"positive": ["clear"], "negative": [prompt]}, "sick": ["ill"]}
    with pytest.raises(RecipeError) as error:
        ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), classes))
    assert (
        str(error.value)
        == f'classes.normal: prompt "{prompt}" negates twice: write this class\'s prompts out'
    )


@pytest.mark.parametrize("prompt", ["No Finding", "effusion: no. No fluid", "nonotone", "no knot", "no note"])
def test_a_single_negation_is_not(prompt: str) -> None:
    classes = {"cat": ["clear"], "dog": [prompt]}
    measured = ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), classes))
    assert measured.primary == "macro_accuracy"
    assert measured.metrics


def test_what_cannot_be_measured_says_why() -> None:
    nothing = ZeroShot()(CollapsedEncoder(), evaluation_set(animals()))
    assert (nothing.metrics, nothing.details) == (
        [],
        {"not_measured": "there are no two classes to choose among"},
    )
    nobody = ZeroShot()(CollapsedEncoder(), evaluation_set([{"id": "0"}], CLASSES))
    assert nobody.details == {"not_measured": "there are no items with exactly one of the classes"}


def test_the_protocol_names_the_prompts() -> None:
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), CLASSES))
    assert results.details["prompts"]["cat"] == {"positive": ["a cat"], "negative": []}
    assert len(results.details["prompts_sha256"]) == 64
    other = ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), CLASSES | {"cat": "one cat"}))
    assert other.details["prompts_sha256"] != results.details["prompts_sha256"]
