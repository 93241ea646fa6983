from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.probes.calibration import Calibration
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value

NAMES = ("cat", "dog", "owl")


def single_label_world(
    n: int, scale: float, sharpness: float = 1.0
) -> tuple[ArrayEncoder, EvaluationSet, np.ndarray, np.ndarray]:
    """Classes drawn from softmax(sharpness · scale · cosine): calibrated at the temperature 1 / sharpness."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2 * n, 3))
    cosines = np.round(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), 6
    ).astype(float)
    chances = softmax(sharpness * scale * cosines, axis=1)
    truth = np.array([rng.choice(3, p=row) for row in chances])
    rows = [{"id": f"{i:04d}", "labels": [NAMES[c]]} for i, c in enumerate(truth)]
    images = {str(row["id"]): vector.tolist() for row, vector in zip(rows, vectors, strict=True)}
    texts = {name: np.eye(3)[i].tolist() for i, name in enumerate(NAMES)}
    classes = {name: [name] for name in NAMES}
    data = replace(evaluation_set(rows[:n], classes), validation=evaluation_set(rows[n:], classes).items)
    return ArrayEncoder(images, texts, scale), data, cosines[:n] * scale, truth[:n]


def test_it_is_a_probe() -> None:
    assert isinstance(Calibration(), Probe)


def test_single_label_equals_torchmetrics_and_scikit_learn() -> None:
    model, data, logits, truth = single_label_world(150, scale=3.0)
    results = Calibration()(model, data)
    chances = softmax(logits, axis=1)
    expected = multiclass_calibration_error(
        torch.tensor(chances), torch.tensor(truth), num_classes=3, n_bins=15
    )
    assert metric_value(results, "ece") == pytest.approx(float(expected), abs=1e-5)
    assert metric_value(results, "nll") == pytest.approx(log_loss(truth, chances), abs=1e-5)
    brier = ((chances - np.eye(3)[truth]) ** 2).sum(axis=1).mean()
    assert metric_value(results, "brier") == pytest.approx(brier, abs=1e-5)
    assert metric_of(results, "brier").chance == pytest.approx(2 / 3)
    assert metric_of(results, "nll").chance == pytest.approx(np.log(3))
    assert not any(metric.higher_is_better for metric in results.metrics)
    points = results.details["reliability"]
    assert sum(point["n"] for point in points) == 150
    error = sum(point["n"] * abs(point["confidence"] - point["accuracy"]) for point in points) / 150
    assert error == pytest.approx(metric_value(results, "ece"))


def test_the_temperature_is_fitted_on_validation_and_corrects_overconfidence() -> None:
    model, data, _, _ = single_label_world(1500, scale=20.0, sharpness=0.2)
    results = Calibration()(model, data)
    assert results.details["temperature"] == pytest.approx(5, rel=0.15)
    assert metric_value(results, "ece") > 0.1
    assert metric_value(results, "ece_fitted") < 0.04
    assert metric_value(results, "nll_fitted") < metric_value(results, "nll") - 0.1
    assert metric_value(results, "ece_fitted") == pytest.approx(
        results.details["ece_of_a_calibrated_model"], abs=0.025
    )


def test_the_measured_items_do_not_change_the_temperature() -> None:
    model, data, _, _ = single_label_world(60, scale=20.0, sharpness=0.2)
    whole = Calibration()(model, data).details["temperature"]
    on_part = Calibration()(model, replace(data, items=data.items.select(range(7)))).details["temperature"]
    assert whole == on_part
    other = replace(data, validation=data.validation.select(range(20)) if data.validation else None)
    assert Calibration()(model, other).details["temperature"] != whole


def test_without_validation_nothing_is_fitted() -> None:
    model, data, _, _ = single_label_world(20, scale=3.0)
    results = Calibration()(model, replace(data, validation=None))
    assert results.details["temperature"] == "not fitted: no validation split with such items"
    assert [metric.name for metric in results.metrics] == ["ece", "ece_adaptive", "brier", "nll"]


def multi_label_world(
    bias: float | None = None,
) -> tuple[ArrayEncoder, EvaluationSet, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(80, 4))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32).astype(float)
    truth = rng.integers(0, 2, (80, 2)).astype(float)
    names = ("fluid", "air")
    rows: list[dict[str, Any]] = [
        {"id": f"{i:02d}", "labels": [name for name, holds in zip(names, row, strict=True) if holds]}
        for i, row in enumerate(truth)
    ]
    rows[0] |= {"labels": [], "meta": {"unknown_labels": ["air"]}}
    truth[0] = [0, np.nan]
    classes: Mapping[str, Any] = {name: {"positive": [name], "negative": [f"no {name}"]} for name in names}
    texts = {name: np.eye(4)[i].tolist() for i, name in enumerate(("fluid", "air", "no fluid", "no air"))}
    model = ArrayEncoder(
        {str(row["id"]): v.tolist() for row, v in zip(rows, vectors, strict=True)}, texts, 2.0
    )
    model.bias = bias
    logits = 2 * np.round(unit[:, :2] - (0 if bias is not None else unit[:, 2:]), 6) + (bias or 0.0)
    return model, evaluation_set(rows, classes, multi_label=True), logits, truth


@pytest.mark.parametrize("bias", [None, -0.7])
def test_multi_label_pools_all_known_answers(bias: float | None) -> None:
    model, data, logits, truth = multi_label_world(bias)
    results = Calibration()(model, data)
    known = ~np.isnan(truth)
    probabilities, positives = expit(logits)[known], truth[known]
    expected = binary_calibration_error(
        torch.tensor(probabilities), torch.tensor(positives).long(), n_bins=15
    )
    assert metric_value(results, "ece") == pytest.approx(float(expected), abs=1e-5)
    assert metric_value(results, "brier") == pytest.approx(
        brier_score_loss(positives, probabilities), abs=1e-6
    )
    assert metric_value(results, "nll") == pytest.approx(log_loss(positives, probabilities), abs=1e-6)
    assert results.details["answers"] == known.sum() == 159


def test_two_way_softmax_is_the_sigmoid_of_the_margin() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    for scale in (1, 100):
        both = softmax(scale * cosines, axis=1)[:, 0]
        assert both == pytest.approx(expit(scale * (cosines[:, 0] - cosines[:, 1])), abs=1e-12)


def test_classes_without_negative_prompts_are_named() -> None:
    model, data, _, _ = multi_label_world()
    classes = {**data.classes, "air": data.classes["air"].model_copy(update={"negative": []})}
    results = Calibration()(model, replace(data, classes=classes))
    assert results.details["classes_without_negative_prompts"] == ["air"]
    assert results.details["answers"] == 80
    without_negatives = {
        name: prompts.model_copy(update={"negative": []}) for name, prompts in classes.items()
    }
    not_measured = Calibration()(model, replace(data, classes=without_negatives))
    assert not_measured.details == {"not_measured": "there are no classes with negative prompts"}


def test_bins_of_equal_mass() -> None:
    # Confidences 0.5 to 0.9 in a classifier of two classes, four bins of two items each.
    confidence = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9])
    logit = np.log(confidence / (1 - confidence))  # the difference of the two logits
    angle = [np.arccos(gap / (4 * np.sqrt(2))) - np.pi / 4 for gap in logit]
    correct = [1, 0, 1, 1, 0, 1, 1, 0]
    rows = [{"id": f"{i}", "labels": ["cat" if good else "dog"]} for i, good in enumerate(correct)]
    images = {f"{i}": [float(np.cos(a)), float(np.sin(a))] for i, a in enumerate(angle)}
    model = ArrayEncoder(images, {"cat": [1, 0], "dog": [0, 1]}, scale=4.0)
    results = Calibration(bins=4)(model, evaluation_set(rows, {"cat": ["cat"], "dog": ["dog"]}))
    truth = np.array([0.5, *correct[1:]])  # the first is a tie
    gaps = [abs(confidence[i : i + 2].sum() - truth[i : i + 2].sum()) for i in range(0, 8, 2)]
    assert metric_value(results, "ece_adaptive") == pytest.approx(sum(gaps) / 8, abs=1e-5)


def test_a_collapsed_model_is_calibrated() -> None:
    rows = [{"id": f"{i}", "labels": [NAMES[i % 2]]} for i in range(10)]
    plain = evaluation_set(rows, {name: [name] for name in NAMES})
    results = Calibration()(CollapsedEncoder(), replace(plain, validation=plain.items))
    assert metric_value(results, "ece") == pytest.approx(0, abs=1e-12)
    assert results.details["temperature"] == 1.0
    assert metric_value(results, "nll") == pytest.approx(np.log(3))


def test_an_invalid_option_is_rejected() -> None:
    with pytest.raises(RecipeError) as error:
        registry.build("probes", "calibration", {"bins": 0}, "probes.calibration")
    assert str(error.value) == "probes.calibration: bins: at least 1"
