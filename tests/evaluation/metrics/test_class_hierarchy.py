"""Classes that include others: labels and log odds by hand, and unchanged where no class does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from domainclip.evaluation.metrics.class_hierarchy import ClassHierarchy
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.evaluation.probes.zero_shot import ZeroShot
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_value
from tests.evaluation.probes.zero_shot_sets import CLASSES

NAMES = ["Covid", "No Finding", "Pneumonia", "Viral"]
IMPLIED = {"Covid": ["Viral"], "Viral": ["Pneumonia"], "Pneumonia": ["Pneumonia"]}


def test_a_class_includes_what_implies_it_at_any_distance() -> None:
    hierarchy = ClassHierarchy.of(NAMES, IMPLIED)
    assert hierarchy.includes.astype(int).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 1],
        [1, 0, 0, 1],
    ]
    assert hierarchy.labels(np.array([0, 1, 3])).tolist() == [[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1]]


def test_the_probability_of_a_class_is_the_sum_of_those_that_it_includes() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    p = softmax(logits, axis=1)
    odds = ClassHierarchy.of(NAMES, IMPLIED).log_odds(logits)
    assert expit(odds[:, 2]) == pytest.approx(p[:, 0] + p[:, 2] + p[:, 3], abs=1e-6)
    assert expit(odds[:, 3]) == pytest.approx(p[:, 0] + p[:, 3], abs=1e-6)
    flat = ClassHierarchy.of(NAMES, {}).log_odds(logits)
    assert odds[:, :2].tolist() == flat[:, :2].tolist()
    assert expit(flat) == pytest.approx(p, abs=1e-6)


def test_a_class_that_includes_all_has_no_odds() -> None:
    hierarchy = ClassHierarchy.of(["a", "b"], {"a": ["b"]})
    assert hierarchy.log_odds(np.array([[3.0, -2.0], [0.0, 9.0]]))[:, 1].tolist() == [0, 0]


def test_zero_shot_classification_counts_what_a_class_includes() -> None:
    """Ten dogs that look a little like a cat and more like a dog, ten owls that look most like a cat."""
    texts = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "an owl": [0, 0, 1]}
    images = {f"{i}": [0.5, 0.8, 0.0] if i < 10 else [0.6, 0.0, 0.5] for i in range(20)}
    rows = [{"id": f"{i}", "labels": ["dog" if i < 10 else "owl"]} for i in range(20)]
    model, card = ArrayEncoder(images, texts), {"implied_classes": {"dog": ["cat"]}}
    flat = ZeroShot()(model, evaluation_set(rows, CLASSES))
    nested = ZeroShot()(model, evaluation_set(rows, CLASSES, **card))
    assert [name for name in (m.name for m in nested.metrics) if name.startswith("auroc/")] == [
        "auroc/cat",
        "auroc/dog",
        "auroc/owl",
    ]
    assert "auroc/cat" not in {metric.name for metric in flat.metrics}
    assert metric_value(nested, "auroc/cat") == 1
    assert metric_value(nested, "accuracy") == metric_value(flat, "accuracy") == 0.5
    assert nested.diagnostics is not None
    assert nested.diagnostics.classes[0].items == 0  # answers and recall are those of the class in the row
    assert nested.diagnostics.classes[0].auroc == 1


def test_a_question_about_an_implied_class_is_answered_with_yes() -> None:
    """Prompts of a protocol ask yes or no, also in a corpus with one class an item."""
    meta = {"implied_labels": ["dog"], "unknown_labels": ["owl"]}
    rows = [{"id": "0", "labels": ["cat"], "meta": meta}, {"id": "1", "labels": ["owl"]}]
    items = evaluation_set(rows, CLASSES).items
    names = ["cat", "dog", "owl"]
    np.testing.assert_array_equal(label_matrix(items, names, implied=True), [[1, 1, np.nan], [0, 0, 1]])
    np.testing.assert_array_equal(label_matrix(items, names), [[1, 0, np.nan], [0, 0, 1]])
