from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.zero_shot import ZeroShot
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value
from tests.evaluation.probes.zero_shot_sets import CLASSES, RawEncoder, animals, chest

AXES = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "an owl": [0, 0, 1]}


def test_it_is_a_probe() -> None:
    assert isinstance(ZeroShot(), Probe)


def test_accuracies_by_hand() -> None:
    model = ArrayEncoder({"0": [1, 0, 0], "1": [1, 0, 0], "2": [0, 0, 1], "3": [1, 0, 0]}, AXES)
    results = ZeroShot()(model, evaluation_set(animals(), CLASSES))
    assert results.primary == "accuracy"  # no class has ten items
    assert not metric_of(results, "macro_accuracy").comparable
    assert metric_value(results, "accuracy") == pytest.approx(2 / 4)
    assert metric_value(results, "macro_accuracy") == pytest.approx((2 / 3 + 0) / 2)
    assert metric_of(results, "accuracy").chance == pytest.approx(1 / 3)
    assert results.details["classes_without_items"] == 1


def test_a_tie_at_the_top_counts_its_share() -> None:
    model = ArrayEncoder({"0": [1, 1, 0], "1": [1, 1, 1], "2": [0, 1, 1], "3": [0, 1, 0]}, AXES)
    results = ZeroShot()(model, evaluation_set(animals(), CLASSES))
    assert metric_of(results, "accuracy").scores == pytest.approx([1 / 2, 1 / 3, 0, 1])


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i}", "labels": ["cat" if i % 5 else "dog"]} for i in range(30)]
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(rows, CLASSES))
    assert metric_value(results, "accuracy") == pytest.approx(1 / 3)
    assert metric_value(results, "macro_accuracy") == pytest.approx(1 / 3)
    several = evaluation_set(rows, CLASSES, multi_label=True)
    assert metric_value(ZeroShot()(CollapsedEncoder(), several), "macro_auroc") == 0.5


def test_items_without_exactly_one_of_the_classes_are_left_out_and_counted() -> None:
    rows = [*animals(), {"id": "4", "labels": ["cat", "dog"]}, {"id": "5", "labels": ["yak"]}, {"id": "6"}]
    rows.append({"id": "7", "labels": ["yak", "owl"]})
    model = ArrayEncoder({f"{i}": [1, 0, 0] for i in range(8)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    assert metric_of(results, "accuracy").ids == ["0", "1", "2", "3", "7"]
    assert results.details["items_without_exactly_one_class"] == 3


def test_classes_with_ten_items_have_a_metric() -> None:
    rows = [
        {"id": f"{i:02d}", "labels": ["cat" if i < 10 else "dog"], "group": f"g{i // 2}"} for i in range(19)
    ]
    model = ArrayEncoder({f"{i:02d}": [1, 0, 0] if i % 2 else [0, 1, 0] for i in range(19)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    assert [metric.name for metric in results.metrics] == [
        "macro_accuracy",
        "macro_accuracy_all_classes",
        "accuracy",
        "macro_f1",
        "macro_f1_all_classes",
        "recall/cat",
        "macro_auroc",
        "auroc/cat",
        "precision/cat",
        "f1/cat",
    ]
    # Nine dogs are too few for a mean over classes that is judged.
    assert metric_of(results, "macro_accuracy").ids == metric_of(results, "recall/cat").ids
    assert len(metric_of(results, "macro_accuracy_all_classes").ids) == 19
    assert not metric_of(results, "macro_accuracy_all_classes").comparable
    assert metric_value(results, "recall/cat") == 0.5
    assert metric_of(results, "recall/cat").groups == [f"g{i // 2}" for i in range(10)]


def test_rare_classes_are_named_where_others_have_many_items() -> None:
    rows = [{"id": f"{i:02d}", "labels": ["cat" if i else "dog"]} for i in range(12)]
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(rows, CLASSES))
    assert results.warnings == [
        'zero_shot on test: macro accuracy leaves out classes with fewer than 10 items: "dog" (1)'
    ]
    assert ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), CLASSES)).warnings == []


def test_macro_accuracy_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "dog", "owl"]
    truth = rng.choice(3, 50, p=[0.7, 0.2, 0.1])
    vectors = rng.normal(size=(50, 3)) + 1.5 * np.eye(3)[truth]
    rows = [{"id": f"{i:02d}", "labels": [names[c]]} for i, c in enumerate(truth)]
    model = ArrayEncoder({f"{i:02d}": row.tolist() for i, row in enumerate(vectors)}, AXES)
    results = ZeroShot()(model, evaluation_set(rows, CLASSES))
    answers = vectors.argmax(axis=1)
    frequent = np.bincount(truth)[truth] >= 10
    assert not frequent.all()
    recalls = recall_score(truth, answers, average=None)
    assert metric_value(results, "macro_accuracy") == pytest.approx(recalls[np.bincount(truth) >= 10].mean())
    assert metric_value(results, "macro_accuracy_all_classes") == pytest.approx(
        balanced_accuracy_score(truth, answers)
    )


def test_prompt_ensembles_differ() -> None:
    # "cat" has two orthogonal prompts: the length of their mean is 0.707 before normalisation.
    classes = {"cat": ["a cat", "an owl"], "dog": ["a dog"]}
    rows = [{"id": "0", "labels": ["cat"]}]
    model = ArrayEncoder({"0": [0.6, 0.65, 0.45]}, AXES)
    assert metric_value(ZeroShot()(model, evaluation_set(rows, classes)), "accuracy") == 1
    plain = ZeroShot(preset="mean_of_scores")
    assert metric_value(plain(model, evaluation_set(rows, classes)), "accuracy") == 0


def test_multi_label_auroc_equals_scikit_learn() -> None:
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
    assert metric_value(results, "auroc/fluid") == pytest.approx(fluid)
    assert metric_value(results, "auroc/air") == pytest.approx(air)
    assert metric_value(results, "macro_auroc") == pytest.approx((fluid + air) / 2)
    assert metric_of(results, "auroc/air").scores == pytest.approx(100 * unit[:, 2], abs=1e-4)


def test_unknown_labels_and_one_sided_classes() -> None:
    classes = {"fluid": ["fluid"], "air": ["air"]}
    rows: list[dict[str, Any]] = [{"id": f"{i}", "labels": ["fluid"] if i < 2 else []} for i in range(4)]
    rows.append({"id": "4", "meta": {"unknown_labels": ["fluid"]}})
    model = ArrayEncoder({f"{i}": [4 - i, 2] for i in range(5)}, {"fluid": [1, 0], "air": [0, 1]})
    results = ZeroShot()(model, evaluation_set(rows, classes, multi_label=True))
    assert [metric.name for metric in results.metrics] == [
        "macro_auroc",
        "macro_auprc",
        "auroc/fluid",
        "auprc/fluid",
        "sensitivity_at_90_percent_specificity/fluid",
        "sensitivity_at_95_percent_specificity/fluid",
    ]
    assert metric_of(results, "auroc/fluid").ids == ["0", "1", "2", "3"]
    assert results.details["unknown_items"] == {"fluid": 1}
    assert results.warnings == ['zero_shot on test: no AUROC for "air": all items have the same label']


def test_reason_is_given_when_nothing_is_measured() -> None:
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


def template_set() -> tuple[ArrayEncoder, Any]:
    rng = np.random.default_rng(4)
    classes = {"cat": ["a cat", "one cat", "cat!"], "dog": ["a dog", "one dog", "dog!"]}
    texts = {text: rng.normal(size=3).tolist() for texts in classes.values() for text in texts}
    rows = [{"id": f"{i:02d}", "labels": ["cat" if i % 3 else "dog"]} for i in range(30)]
    model = ArrayEncoder({str(row["id"]): rng.normal(size=3).tolist() for row in rows}, texts)
    return model, evaluation_set(rows, classes)


def test_the_spread_over_templates_equals_each_template_alone() -> None:
    model, data = template_set()
    alone = []
    for k in range(3):
        one = {name: prompts.positive[k : k + 1] for name, prompts in data.classes.items()}
        single = evaluation_set(
            [{"id": f"{i:02d}", "labels": ["cat" if i % 3 else "dog"]} for i in range(30)], one
        )
        alone.append(metric_value(ZeroShot()(model, single), "accuracy"))
    results = ZeroShot()(model, data)
    spread = [
        metric_value(results, f"accuracy_over_templates/{pick}") for pick in ("lowest", "median", "highest")
    ]
    assert spread == pytest.approx([min(alone), np.median(alone), max(alone)])
    assert min(alone) < max(alone)


def test_prompts_of_unequal_number_have_no_spread() -> None:
    classes = {"cat": ["a cat", "one cat"], "dog": ["a dog"]}
    results = ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), classes))
    assert not [metric.name for metric in results.metrics if "over_templates" in metric.name]


def test_top5_accuracy_where_five_are_less_than_half_of_the_classes() -> None:
    rng = np.random.default_rng(0)
    names = [f"class {i:02d}" for i in range(11)]
    truth = rng.integers(0, 11, 40)
    rows = [{"id": f"{i:02d}", "labels": [names[c]]} for i, c in enumerate(truth)]
    vectors = rng.normal(size=(40, 11))
    model = ArrayEncoder(
        {str(row["id"]): vector.tolist() for row, vector in zip(rows, vectors, strict=True)},
        {name: np.eye(11)[i].tolist() for i, name in enumerate(names)},
    )
    results = ZeroShot()(model, evaluation_set(rows, {name: [name] for name in names}))
    expected = top_k_accuracy_score(truth, vectors, k=5, labels=range(11))
    assert metric_value(results, "top5_accuracy") == pytest.approx(expected)
    assert metric_of(results, "top5_accuracy").chance == pytest.approx(5 / 11)
    few = ZeroShot()(CollapsedEncoder(), evaluation_set(rows, {name: [name] for name in names[:10]}))
    assert "top5_accuracy" not in [metric.name for metric in few.metrics]


def test_macro_f1_equals_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    truth, vectors = rng.integers(0, 3, 40), rng.normal(size=(40, 3))
    names = list(CLASSES)
    rows = [{"id": f"{i:02d}", "labels": [names[c]]} for i, c in enumerate(truth)]
    model = ArrayEncoder({f"{i:02d}": row.tolist() for i, row in enumerate(vectors)}, AXES)
    expected = f1_score(truth, vectors.argmax(axis=1), average="macro")
    assert metric_value(ZeroShot()(model, evaluation_set(rows, CLASSES)), "macro_f1") == pytest.approx(
        expected
    )


def test_bare_uses_the_class_name_as_prompt() -> None:
    model = ArrayEncoder({"0": [1, 0]}, {"a cat": [0, 1], "a dog": [1, 0], "cat": [1, 0], "dog": [0, 1]})
    data = evaluation_set([{"id": "0", "labels": ["cat"]}], {"cat": "a cat", "dog": "a dog"})
    assert metric_value(ZeroShot()(model, data), "accuracy") == 0
    results = ZeroShot(preset="bare")(model, data)
    assert metric_value(results, "accuracy") == 1
    assert (results.details["preset"], results.details["preset_version"]) == ("bare", 1)
    assert results.details["prompts_version"] is None  # the card's prompts were not used


def test_raw_mean_weights_vectors_by_length() -> None:
    # "cat" is 10 × [1, 0] and 1 × [0, 1]: the raw mean is near the first axis, the unit mean on the diagonal.
    texts: dict[str, list[float]] = {"a cat": [10, 0], "one cat": [0, 1], "a dog": [0.5, 0.5]}
    classes = {"cat": ["a cat", "one cat"], "dog": ["a dog"]}
    data = evaluation_set([{"id": "0", "labels": ["cat"]}], classes)
    model = RawEncoder({"0": [1, 0]}, texts)
    assert metric_value(ZeroShot()(model, data), "accuracy") == 0.5  # both are on the diagonal: a tie
    assert metric_value(ZeroShot(preset="raw_mean")(model, data), "accuracy") == 1
    without = ZeroShot(preset="raw_mean")(ArrayEncoder({"0": [1, 0]}, texts), data)
    assert without.details == {"not_measured": "there are no text embeddings before normalisation"}


def test_the_chance_level_of_auprc_is_the_prevalence() -> None:
    model, data, truth, unit = chest()
    results = ZeroShot(preset="cxr.chexzero")(model, data)
    assert metric_of(results, "auprc/Edema").chance == pytest.approx(truth[:, 3].mean())
    expected = average_precision_score(truth[:, 3], np.round(unit[:, 3] - unit[:, 9], 6))
    assert metric_value(results, "auprc/Edema") == pytest.approx(expected)


def test_thresholds_come_from_validation_and_are_recorded() -> None:
    classes = {"fluid": {"positive": ["fluid"], "negative": ["no fluid"]}}
    texts: dict[str, list[float]] = {"fluid": [1, 0], "no fluid": [0, 1]}
    # Margins on validation: ill 0.8 and 0.4, well 0.2 and -0.6; the threshold lies midway, at 0.3.
    margins = {"v0": 0.8, "v1": 0.4, "v2": 0.2, "v3": -0.6, "t0": 0.9, "t1": 0.25, "t2": 0.35, "t3": -0.5}
    images = {}
    for name, margin in margins.items():
        angle = np.arccos(margin / np.sqrt(2)) - np.pi / 4
        images[name] = [float(np.cos(angle)), float(np.sin(angle))]

    def split(prefix: str) -> list[dict[str, Any]]:
        return [{"id": f"{prefix}{i}", "labels": ["fluid"] if i < 2 else []} for i in range(4)]

    plain = evaluation_set(split("t"), classes, multi_label=True)
    data = replace(plain, validation=evaluation_set(split("v"), classes, multi_label=True).items)
    model = ArrayEncoder(images, texts, scale=10.0)
    results = ZeroShot()(model, data)
    assert results.details["thresholds"] == {"fluid": pytest.approx(3.0, abs=1e-4)}
    # Of the four measured items, t1 (ill, 0.25) is a false negative and t2 (well, 0.35) a false positive.
    assert metric_of(results, "macro_sensitivity").scores[:, 0, 0].tolist() == [1, 0, 1, 0]
    assert (metric_value(results, "macro_sensitivity"), metric_value(results, "macro_specificity")) == (
        0.5,
        0.5,
    )
    assert metric_value(results, "macro_balanced_accuracy") == 0.5
    assert "sensitivity/fluid" not in [metric.name for metric in results.metrics]  # two items
    without = ZeroShot()(model, plain)
    assert without.details["thresholds"] == "not chosen: no validation split with both kinds of items"
    assert not [metric.name for metric in without.metrics if metric.name.startswith("macro_sensitivity")]
    # What is judged needs no threshold from validation; rates at a chosen threshold are descriptions.
    judged = {metric.name for metric in results.metrics if metric.comparable}
    assert {metric.name for metric in without.metrics} == judged


def test_classes_with_ten_items_have_sensitivity_and_specificity() -> None:
    model, data, truth, _ = chest(n=60)
    same = replace(data, validation=data.items)
    results = ZeroShot(preset="cxr.chexzero")(model, same)
    limit = results.details["thresholds"]["Edema"]
    answers = metric_of(results, "auroc/Edema").scores >= limit
    sensitivity, specificity = answers[truth[:, 3] == 1].mean(), (~answers[truth[:, 3] == 0]).mean()
    assert metric_value(results, "sensitivity/Edema") == pytest.approx(sensitivity)
    assert metric_value(results, "specificity/Edema") == pytest.approx(specificity)
    # No other threshold is better on the selecting split: scikit-learn's curve.
    false, true, _ = roc_curve(truth[:, 3], metric_of(results, "auroc/Edema").scores)
    assert sensitivity + specificity - 1 == pytest.approx((true - false).max())


def test_a_mean_over_rare_findings_gets_a_warning() -> None:
    classes = {"fluid": ["fluid"], "air": ["air"]}
    rows = [{"id": f"{i:02d}", "labels": ["fluid"] * (i < 15) + ["air"] * (i == 0)} for i in range(30)]
    model = ArrayEncoder({f"{i:02d}": [30 - i, 9] for i in range(30)}, {"fluid": [1, 0], "air": [0, 1]})
    results = ZeroShot()(model, evaluation_set(rows, classes, multi_label=True))
    assert results.warnings == [
        'zero_shot on test: macro AUROC leaves out classes with fewer than 10 groups with and without them: "air" (1)'
    ]
