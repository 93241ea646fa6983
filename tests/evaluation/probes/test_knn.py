from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.knn import Knn
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set, items
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    clusters,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)

CLASSES = {"cat": "a cat", "dog": "a dog"}


def test_it_is_a_probe() -> None:
    assert isinstance(Knn(), Probe)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_it_equals_scikit_learn(k: int) -> None:
    model, data = clusters(noise=0.7, seed=k)
    results = Knn(k=(k,))(model, data)
    oracle = KNeighborsClassifier(k, metric="cosine", weights=lambda away: np.exp((1 - away) / 0.07))
    oracle.fit(model.images(data.train).astype(float), [labels[0] for labels in data.train["labels"]])
    expected = oracle.predict(model.images(data.items).astype(float)) == [
        labels[0] for labels in data.items["labels"]
    ]
    assert 0.3 < expected.mean() < 1
    assert metric_of(results, "accuracy").scores.tolist() == expected.tolist()
    assert results.details == {"k": k, "chosen_on": "given", "neighbours": 60}


def test_neighbours_that_tie_for_the_last_place_share_it() -> None:
    """Two places: the cat at cosine 1, and one place shared by a cat and two dogs at cosine 0.

    The nearest has weight 1, the others exp(-1/0.5) each a third: cats 1 + w/3, dogs 2w/3 with w = 0.1353.
    """
    images = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1], "d": [0, -1, 0], "q": [1, 0, 0]}
    rows = [{"id": name, "labels": ["cat" if name in "ab" else "dog"]} for name in "abcd"]
    data = replace(evaluation_set([{"id": "q", "labels": ["cat"]}], CLASSES), train=items(rows))
    probe = Knn(k=(2,), temperature=0.5)
    votes = probe._votes(np.array([[1.0, 0, 0]]), _train(images, rows, data), 2)
    weight = np.exp(-2)
    assert votes[0] == pytest.approx(
        [(1 + weight / 3) / (1 + weight), (2 * weight / 3) / (1 + weight)], abs=1e-6
    )


def _train(images: dict[str, list[int]], rows: list[dict[str, object]], data: object) -> object:
    from domainclip.evaluation.metrics.labelled_examples import labelled_examples

    return labelled_examples(WordEncoder(images), data.train, ["cat", "dog"], 10)  # type: ignore[attr-defined]


def test_k_is_chosen_on_validation_and_never_on_the_measured_items() -> None:
    # Each item's nearest neighbour has a wrong label; the majority of the three nearest is correct.
    images, splits = {}, {}
    for split in ("train", "validation", "test"):
        rows = []
        for i, angle in enumerate([0.0, 0.02, 0.04, 1.5, 1.52, 1.54]):
            name = f"{split}{i}"
            images[name] = [np.cos(angle), np.sin(angle)]
            rows.append({"id": name, "labels": ["cat" if i < 3 else "dog"]})
        splits[split] = rows
    splits["train"][0]["labels"] = ["dog"]
    images["test0"] = images["validation0"] = images["train0"]
    data = replace(evaluation_set(splits["test"], CLASSES), train=items(splits["train"]))
    fitted = Knn(k=(1, 3))(WordEncoder(images), replace(data, validation=items(splits["validation"])))
    assert (fitted.details["k"], fitted.details["chosen_on"]) == (3, "validation")
    assert metric_value(fitted, "accuracy") == 1
    assert metric_value(Knn(k=(1,))(WordEncoder(images), data), "accuracy") == pytest.approx(5 / 6)
    blind = Knn()(WordEncoder(images), data)
    assert (blind.details["k"], blind.details["chosen_on"]) == (5, "not chosen: there is no validation split")


def test_a_collapsed_model_scores_chance() -> None:
    _, data = clusters(n=31)  # one class has one more item
    results = Knn()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)
    assert metric_of(results, "macro_accuracy").chance == pytest.approx(1 / 3)


def test_multi_label_gives_auroc_and_unknown_labels_do_not_vote() -> None:
    images = {"a": [1, 0], "b": [0.9, 0.1], "c": [0, 1], "d": [0.1, 0.9], "q": [1, 0], "r": [0, 1]}
    train = [{"id": "a", "labels": ["x"]}, {"id": "c"}, {"id": "d"}]
    train.append({"id": "b", "meta": {"unknown_labels": ["x"]}})
    data = evaluation_set([{"id": "q", "labels": ["x"]}, {"id": "r"}], {"x": "an x"}, multi_label=True)
    results = Knn(k=(2,))(WordEncoder(images), replace(data, train=items(train)))
    assert metric_value(results, "macro_auroc") == 1
    assert scores_by_id(results, "macro_auroc") == {"q": [1.0], "r": [0.0]}
    assert len(results.metrics) == 1


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters(noise=0.7)
    first, second = Knn()(model, data), Knn()(model, shuffled(data))
    assert scores_by_id(first, "accuracy") == scores_by_id(second, "accuracy")
    assert first.details == second.details


def test_missing_input_is_reported() -> None:
    model, data = clusters()
    results = Knn()(model, replace(data, train=None))
    assert results.details == {"not_measured": "there are no training items with a class"}
