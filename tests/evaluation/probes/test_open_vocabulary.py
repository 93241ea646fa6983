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
    figure,
    metric_of,
    scores_by_id,
    shuffled,
)

CLASSES = {"cat": "a cat", "dog": "a dog"}
ROWS = [{"id": "0", "labels": ["cat"]}, {"id": "1", "labels": ["dog"]}]


def test_it_is_a_probe() -> None:
    assert isinstance(OpenVocabulary(), Probe)


def test_stability_by_hand() -> None:
    """One word joins at each of two steps, in either order; "worm" steals the dog, "sofa" nobody.

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
    assert figure(results, "closed_accuracy") == 1


def test_extensibility_is_the_mean_over_steps_of_who_is_there() -> None:
    """Four classes, two steps. In an order that starts with two of them, only their items are asked first."""
    names = ["a", "b", "c", "d"]
    texts = {name: np.eye(4)[i] for i, name in enumerate(names)}
    images = {name: np.eye(4)[i] for i, name in enumerate(names)} | {"d": np.array([0, 0, 1, 0.5])}
    rows = [{"id": name, "labels": [name]} for name in names]
    results = OpenVocabulary(steps=2, orders=2)(
        WordEncoder(images, texts), evaluation_set(rows, {n: n for n in names})
    )
    wanted = []
    for order in range(2):
        for there in _growing_subsets(names, 2, order):
            # The d item looks like c: wrong exactly when c is among the candidates.
            wanted.append(np.mean([not (i == 3 and 2 in there) for i in there]))
    assert len(wanted) == 4
    assert figure(results, "extensibility") == pytest.approx(np.mean(wanted))
    assert metric_of(results, "extensibility").chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_more_words_never_raise_the_accuracy() -> None:
    model, data = clusters(n=60, classes=6, noise=0.3)
    results = OpenVocabulary()(model, data)
    stable = scores_by_id(results, "stability")
    closed = scores_by_id(results, "closed_accuracy")
    assert all(stable[name] <= closed[name] for name in closed)
    assert figure(results, "stability") < figure(results, "closed_accuracy")
    assert results.details["words"] == 100


def test_words_far_from_every_image_change_nothing() -> None:
    model, data = clusters(n=30, width=9)
    probe = OpenVocabulary(words=("up", "down"), template="{}")
    model.text_vectors = {**model.text_vectors, "up": [0] * 8 + [-1], "down": [0] * 8 + [-1]}
    for name, vector in model.image_vectors.items():
        model.image_vectors[name] = [*vector[:8], 5.0]  # type: ignore[index]
    results = probe(model, data)
    assert figure(results, "stability") == figure(results, "closed_accuracy")


def test_a_word_that_is_a_class_of_the_corpus_does_not_join() -> None:
    results = OpenVocabulary(words=("Cat", "sofa"))(CollapsedEncoder(), evaluation_set(ROWS, CLASSES))
    assert results.details["words"] == 1


def test_a_collapsed_model_scores_chance() -> None:
    _, data = clusters(n=31, classes=5)
    results = OpenVocabulary()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert figure(results, metric.name) == pytest.approx(metric.chance)


def test_a_resample_without_items_of_a_step_goes_on_with_the_others() -> None:
    _, data = clusters(n=31, classes=5)
    metric = metric_of(OpenVocabulary()(CollapsedEncoder(), data), "extensibility")
    weights = np.zeros((2, 31))
    weights[0, 0] = 1.0
    values = metric.aggregate(metric.scores, weights)
    assert 0 < values[0] <= 0.5
    assert np.isnan(values[1])


def test_the_order_of_rows_is_moot() -> None:
    model, data = clusters(noise=0.7)
    first, second = OpenVocabulary()(model, data), OpenVocabulary()(model, shuffled(data))
    assert scores_by_id(first, "stability") == scores_by_id(second, "stability")
    assert figure(first, "extensibility") == pytest.approx(figure(second, "extensibility"))


def test_what_is_missing_is_said() -> None:
    model, data = clusters()
    results = OpenVocabulary()(model, replace(data, classes={}))
    assert results.details == {"not_measured": "there are no items with exactly one of two classes or more"}
