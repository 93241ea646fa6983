from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.open_vocabulary import OpenVocabulary, _growing_subsets
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    clusters,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)

CLASSES = {"cat": "a cat", "dog": "a dog"}
ROWS = [{"id": "0", "labels": ["cat"]}, {"id": "1", "labels": ["dog"]}]


def test_it_is_a_probe() -> None:
    assert isinstance(OpenVocabulary(), Probe)


def test_stability_by_hand() -> None:
    """One word joins at each of two steps, in either order; "worm" is nearest to the dog, "sofa" to no item.

    Steps of any order hold one word, then both. With the worm alone or with both the dog is lost; with the
    sofa alone nothing is. So the dog scores 0 or 1/2 by the order drawn, the cat always 1.
    """
    texts = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "worm": [0.1, 1, 0.2], "sofa": [0, 0, 1]}
    model = WordEncoder({"0": [1, 0, 0], "1": [0.1, 1, 0.2]}, texts)
    probe = OpenVocabulary(words=("worm", "sofa"), template="{}", steps=2, orders=4)
    results = probe(model, evaluation_set(ROWS, CLASSES))
    first = [_growing_subsets(["worm", "sofa"], 2, order)[0].tolist() for order in range(4)]
    dog = np.mean([(0.5 if joined == [1] else 0.0) for joined in first])
    assert scores_by_id(results, "stability") == {"0": 1.0, "1": dog}
    assert {tuple(joined) for joined in first} == {(0,), (1,)}
    assert metric_of(results, "stability").chance == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert metric_value(results, "closed_accuracy") == 1


def test_extensibility_is_the_mean_over_steps_of_the_present_classes() -> None:
    """Four classes, two steps: the first step has the items of the first two classes of an order."""
    names = ["a", "b", "c", "d"]
    texts = {name: np.eye(4)[i] for i, name in enumerate(names)}
    images = {name: np.eye(4)[i] for i, name in enumerate(names)} | {"d": np.array([0, 0, 1, 0.5])}
    rows = [{"id": name, "labels": [name]} for name in names]
    results = OpenVocabulary(steps=2, orders=2)(
        WordEncoder(images, texts), evaluation_set(rows, {n: n for n in names})
    )
    expected = []
    for order in range(2):
        for present in _growing_subsets(names, 2, order):
            # The d item is near c: wrong exactly when c is among the candidates.
            expected.append(np.mean([not (i == 3 and 2 in present) for i in present]))
    assert len(expected) == 4
    assert metric_value(results, "extensibility") == pytest.approx(np.mean(expected))
    assert metric_of(results, "extensibility").chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_more_words_never_raise_the_accuracy() -> None:
    model, data = clusters(n=60, classes=6, noise=0.3)
    results = OpenVocabulary()(model, data)
    stable = scores_by_id(results, "stability")
    closed = scores_by_id(results, "closed_accuracy")
    assert all(stable[name] <= closed[name] for name in closed)
    assert metric_value(results, "stability") < metric_value(results, "closed_accuracy")
    assert results.details["words"] == 100


def test_words_far_from_every_image_have_no_effect() -> None:
    model, data = clusters(n=30, width=9)
    probe = OpenVocabulary(words=("up", "down"), template="{}")
    model.text_vectors = {**model.text_vectors, "up": [0] * 8 + [-1], "down": [0] * 8 + [-1]}
    for name, vector in model.image_vectors.items():
        model.image_vectors[name] = [*vector[:8], 5.0]  # type: ignore[index]
    results = probe(model, data)
    assert metric_value(results, "stability") == metric_value(results, "closed_accuracy")


def test_a_word_that_is_a_class_of_the_corpus_is_not_added() -> None:
    results = OpenVocabulary(words=("Cat", "sofa"))(CollapsedEncoder(), evaluation_set(ROWS, CLASSES))
    assert results.details["words"] == 1


def test_a_collapsed_model_scores_chance() -> None:
    _, data = clusters(n=31, classes=5)
    results = OpenVocabulary()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_a_resample_without_items_of_a_step_uses_the_other_steps() -> None:
    _, data = clusters(n=31, classes=5)
    metric = metric_of(OpenVocabulary()(CollapsedEncoder(), data), "extensibility")
    weights = np.zeros((2, 31))
    weights[0, 0] = 1.0
    values = metric.aggregate(metric.scores, weights)
    assert 0 < values[0] <= 0.5
    assert np.isnan(values[1])


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters(noise=0.7)
    first, second = OpenVocabulary()(model, data), OpenVocabulary()(model, shuffled(data))
    assert scores_by_id(first, "stability") == scores_by_id(second, "stability")
    assert metric_value(first, "extensibility") == pytest.approx(metric_value(second, "extensibility"))


def test_missing_input_is_reported() -> None:
    model, data = clusters()
    results = OpenVocabulary()(model, replace(data, classes={}))
    assert results.details == {"not_measured": "there are no items with exactly one of two classes or more"}
