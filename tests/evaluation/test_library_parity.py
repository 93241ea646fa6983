"""Every metric of a classifier that scikit-learn or torchmetrics has, with classes that no item has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics as sk
from torchmetrics.functional.classification import (
    binary_sensitivity_at_specificity,
    multiclass_auroc,
    multiclass_f1_score,
    multilabel_auroc,
    multilabel_average_precision,
)

from domainclip.evaluation.probes.zero_shot import ZeroShot
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value

NAMES = ["cat", "dog", "owl", "yak"]  # no item is a yak
AXES = {name: np.eye(5)[i].tolist() for i, name in enumerate(NAMES)}
CLASSES = {name: [name] for name in NAMES}


def of_one_class(n: int = 90) -> tuple[ArrayEncoder, list[dict[str, object]], np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    rows = [{"id": f"{i:02d}", "labels": [NAMES[c]]} for i, c in enumerate(truth)]
    vectors = rng.normal(size=(n, 5)) + 0.8 * np.eye(5)[truth]
    images = {str(row["id"]): vector.tolist() for row, vector in zip(rows, vectors, strict=True)}
    return ArrayEncoder(images, AXES, scale=5.0), rows, truth


@pytest.mark.filterwarnings("ignore")
def test_one_class_an_item() -> None:
    model, rows, truth = of_one_class()
    data = evaluation_set(rows, CLASSES)
    results = ZeroShot(library_means=True)(model, data)
    chances = softmax(5.0 * model.images(data.items)[:, :4].astype(np.float64), axis=1)
    answers = chances.argmax(axis=1)
    assert set(answers) - set(truth) == {3}  # yaks are answered
    assert results.details["answers_to_classes_without_items"] == {"yak": (answers == 3).sum()}
    tensors = torch.tensor(answers), torch.tensor(truth)
    of_library = sk.f1_score(truth, answers, average="macro")
    assert metric_value(results, "macro_f1_as_scikit_learn") == pytest.approx(of_library)
    assert float(multiclass_f1_score(*tensors, 4, average="macro")) == pytest.approx(of_library)
    present = sk.f1_score(truth, answers, labels=[0, 1, 2], average="macro")
    assert metric_value(results, "macro_f1") == pytest.approx(present)
    assert present > of_library
    assert metric_value(results, "macro_accuracy") == pytest.approx(
        sk.balanced_accuracy_score(truth, answers)
    )
    areas = [sk.roc_auc_score(truth == i, chances[:, i]) for i in range(3)]
    assert metric_value(results, "macro_auroc") == pytest.approx(np.mean(areas))
    # torchmetrics counts the class without items as 0.
    everything = multiclass_auroc(torch.tensor(chances), torch.tensor(truth), 4, average="macro")
    assert float(everything) == pytest.approx(sum(areas) / 4)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, answers, labels=range(4), zero_division=0
    )
    for i, name in enumerate(NAMES[:3]):
        assert metric_value(results, f"recall/{name}") == pytest.approx(recall[i])
        assert metric_value(results, f"precision/{name}") == pytest.approx(precision[i])
        assert metric_value(results, f"f1/{name}") == pytest.approx(f1[i])
        assert metric_value(results, f"auroc/{name}") == pytest.approx(areas[i])
        assert [
            metric_of(results, f"{part}/{name}").comparable for part in ("recall", "precision", "f1")
        ] == [
            True,
            False,
            False,
        ]
    assert not [metric.name for metric in results.metrics if metric.name.endswith("/yak")]


@pytest.mark.filterwarnings("ignore")
def test_several_classes_an_item() -> None:
    """Nobody has a yak, so neither library has the mean that is headlined here; each has another."""
    rng = np.random.default_rng(1)
    truth = np.c_[rng.random((80, 3)) < [0.5, 0.4, 0.3], np.zeros(80)].astype(int)
    rows = [
        {"id": f"{i:02d}", "labels": [name for name, holds in zip(NAMES, row, strict=True) if holds]}
        for i, row in enumerate(truth)
    ]
    vectors = rng.normal(size=(80, 5)) + np.c_[truth, np.zeros(80)]
    images = {str(row["id"]): vector.tolist() for row, vector in zip(rows, vectors, strict=True)}
    model = ArrayEncoder(images, AXES)
    data = evaluation_set(rows, CLASSES, multi_label=True)
    data = replace(data, validation=data.items)
    results = ZeroShot(library_means=True)(model, data)
    scores = model.images(data.items)[:, :4].astype(np.float64)
    tensors = torch.tensor(scores), torch.tensor(truth), 4
    areas = [sk.roc_auc_score(truth[:, i], scores[:, i]) for i in range(3)]
    assert metric_value(results, "macro_auroc") == pytest.approx(np.mean(areas))
    assert np.isnan(sk.roc_auc_score(truth, scores, average="macro"))
    assert metric_value(results, "macro_auroc_as_torchmetrics") == pytest.approx(
        float(multilabel_auroc(*tensors, average="macro"))
    )
    steps = [sk.average_precision_score(truth[:, i], scores[:, i]) for i in range(3)]
    assert metric_value(results, "macro_auprc") == pytest.approx(np.mean(steps))
    of_library = sk.average_precision_score(truth, scores, average="macro")
    assert metric_value(results, "macro_auprc_as_scikit_learn") == pytest.approx(of_library)
    assert float(multilabel_average_precision(*tensors, average="macro")) == pytest.approx(of_library)
    for i, name in enumerate(NAMES[:3]):
        expected, _ = binary_sensitivity_at_specificity(
            torch.tensor(scores[:, i]), torch.tensor(truth[:, i]), 0.9
        )
        assert metric_value(results, f"sensitivity_at_90_percent_specificity/{name}") == pytest.approx(
            float(expected)
        )
        answers = scores[:, i] * 100 >= results.details["thresholds"][name]
        for part, value in (
            ("sensitivity", sk.recall_score(truth[:, i], answers)),
            ("specificity", sk.recall_score(1 - truth[:, i], ~answers)),
            ("positive_predictive_value", sk.precision_score(truth[:, i], answers)),
            ("negative_predictive_value", sk.precision_score(1 - truth[:, i], ~answers)),
        ):
            assert metric_value(results, f"{part}/{name}") == pytest.approx(value)
            assert not metric_of(results, f"{part}/{name}").comparable
