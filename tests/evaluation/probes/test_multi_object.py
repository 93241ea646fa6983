from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.multi_object import MultiObject
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)

AXES = {"cat": np.eye(4)[0], "dog": np.eye(4)[1], "owl": np.eye(4)[2], "yak": np.eye(4)[3]}
CLASSES = {name: f"a {name}" for name in AXES}


class Naming(WordEncoder):
    """Texts are sums of the classes that they name, the first with a given weight."""

    def __init__(self, images: dict[str, Any], first: float) -> None:
        super().__init__(images)
        self.first = first

    def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
        rows = []
        for text in texts:
            one, *others = [AXES[word] for word in text.split() if word in AXES]
            rows.append(self.first * one + sum(others) if others else one)
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scene(name: str, *labels: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "labels": list(labels), **more}


def test_it_is_a_probe() -> None:
    assert isinstance(MultiObject(), Probe)


def test_a_model_of_both_objects_matches_and_a_model_of_one_ties() -> None:
    """An image of a cat only: "cat and dog" ties with "cat and owl" and "cat and yak" (three at the top)."""
    images = {"both": AXES["cat"] + AXES["dog"], "one": AXES["cat"]}
    data = evaluation_set(
        [scene("both", "cat", "dog"), scene("one", "cat", "dog")], CLASSES, multi_label=True
    )
    results = MultiObject()(Naming(images, 1.0), data)
    assert scores_by_id(results, "matching") == pytest.approx({"both": 1.0, "one": 1 / 3})
    assert metric_of(results, "matching").chance == pytest.approx(1 / 5)
    assert results.primary == "matching"


@pytest.mark.parametrize(("weight", "share"), [(2.0, 1.0), (1.0, 0.5), (0.5, 0.0)])
def test_first_named_depends_on_the_weight_of_the_first_word(weight: float, share: float) -> None:
    data = evaluation_set([scene("0", "cat", "dog"), scene("1", "owl", "yak")], CLASSES, multi_label=True)
    results = MultiObject()(Naming({"0": AXES["cat"], "1": AXES["owl"]}, weight), data)
    assert metric_value(results, "first_named") == share
    assert metric_of(results, "first_named").chance == 0.5
    assert not metric_of(results, "first_named").higher_is_better


def test_a_dominant_class_is_not_a_bias() -> None:
    class Strong(Naming):
        def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            rows = super().texts(texts)
            rows = rows + np.array([10.0 * ("cat" in text) for text in texts])[:, None] * AXES["cat"]
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]

    data = evaluation_set([scene("0", "cat", "dog")], CLASSES, multi_label=True)
    assert metric_value(MultiObject()(Strong({"0": AXES["cat"]}, 1.0), data), "first_named") == 0.5


def test_boxes_give_the_larger_object_metric() -> None:
    def boxes(cat: int, dog: int) -> dict[str, Any]:
        return {"boxes": [{"label": "cat", "box": [0, 0, cat, 10]}, {"label": "dog", "box": [0, 0, dog, 10]}]}

    images = {"a": AXES["cat"] * 2 + AXES["dog"], "b": AXES["cat"] * 2 + AXES["dog"], "c": AXES["owl"]}
    rows = [scene("a", "cat", "dog", meta=boxes(30, 10)), scene("b", "cat", "dog", meta=boxes(10, 30))]
    rows.append(scene("c", "cat", "dog", meta=boxes(10, 10)))  # neither is larger
    results = MultiObject()(Naming(images, 1.0), evaluation_set(rows, CLASSES, multi_label=True))
    assert scores_by_id(results, "larger_object") == {"a": 1.0, "b": 0.0}
    plain = MultiObject()(Naming(images, 1.0), evaluation_set([scene("a", "cat", "dog")], CLASSES))
    assert [metric.name for metric in plain.metrics] == ["matching", "first_named"]


def test_a_class_that_is_unknown_is_not_absent() -> None:
    row = scene("0", "cat", "dog", meta={"unknown_labels": ["owl"]})
    data = evaluation_set([row], CLASSES, multi_label=True)
    results = MultiObject()(Naming({"0": AXES["cat"]}, 1.0), data)
    assert metric_of(results, "matching").chance == pytest.approx(1 / 3)  # the yak alone is absent


def test_a_collapsed_model_scores_chance() -> None:
    rows = [scene(f"{i}", *sorted(AXES)[: 2 + i % 2]) for i in range(9)]
    results = MultiObject()(CollapsedEncoder(), evaluation_set(rows, CLASSES, multi_label=True))
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_results_do_not_depend_on_row_order() -> None:
    rows = [scene(f"{i}", *sorted(AXES)[: 2 + i % 2]) for i in range(30)]
    model = Naming({f"{i}": np.random.default_rng(i).normal(size=4) for i in range(30)}, 1.0)
    data = evaluation_set(rows, CLASSES, multi_label=True)
    first, second = MultiObject(max_items=20)(model, data), MultiObject(max_items=20)(model, shuffled(data))
    assert scores_by_id(first, "matching") == scores_by_id(second, "matching")
    assert first.details["items"] == 20


def test_missing_input_is_reported() -> None:
    data = evaluation_set([scene("0", "cat"), scene("1", *AXES)], CLASSES, multi_label=True)
    results = MultiObject()(CollapsedEncoder(), data)
    assert results.details == {"not_measured": "there are no items with two classes and a third one absent"}
