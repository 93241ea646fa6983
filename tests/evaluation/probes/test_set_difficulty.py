from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.set_difficulty import SetDifficulty, vendi
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import clusters, metric_value, scores_by_id, shuffled


def test_it_is_a_probe() -> None:
    assert isinstance(SetDifficulty(), Probe)


def test_three_metrics_by_hand() -> None:
    """Images at 0, 60 and 90 degrees, the first two of one truth key; captions a, a and b."""
    angles = np.radians([0, 60, 90])
    images = {f"{i}": [np.cos(a), np.sin(a)] for i, a in enumerate(angles)}
    rows = [
        {"id": "0", "texts": ["a"], "truth": "g"},
        {"id": "1", "texts": ["A", "c"], "truth": "g"},
        {"id": "2", "texts": ["b"]},
    ]
    texts = {"a": [1, 0], "A": [1, 0], "b": [1, 1], "c": [0, 1]}
    results = SetDifficulty()(ArrayEncoder(images, texts), evaluation_set(rows))
    nearest = scores_by_id(results, "nearest_image")
    assert nearest == pytest.approx(
        {"0": 0, "1": np.cos(np.radians(30)), "2": np.cos(np.radians(30))}, abs=1e-6
    )
    assert metric_value(results, "nearest_caption") == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert scores_by_id(results, "ceiling_r1") == {"0": 0.5, "1": 0.5, "2": 1.0}
    assert results.details["different_captions"] == 2


def test_the_effective_number_of_items() -> None:
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((5, 4)) / 2) == pytest.approx(1)
    # Two kinds of items in equal numbers; from the paper: the eigenvalues are 1/2 and 1/2.
    assert vendi(np.repeat(np.eye(3)[:2], 10, axis=0)) == pytest.approx(2)
    # K = [[1, .9, 0], [.9, 1, 0], [0, 0, 1]] is the paper's package's example; its eigenvalues 1.9, 0.1 and 1.
    values = np.array([1.9, 0.1, 1]) / 3
    rows = np.linalg.cholesky(np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]]))
    assert vendi(rows) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
    assert vendi(np.repeat(rows, 5, axis=0)) == pytest.approx(vendi(rows))


def test_a_set_of_similar_items_is_harder_than_a_set_of_distinct_ones() -> None:
    model, data = clusters(n=40, noise=0.05)
    _, other = clusters(n=40, noise=50.0)
    stranger, _ = clusters(n=40, noise=50.0)
    twins, strangers = SetDifficulty()(model, data), SetDifficulty()(stranger, other)
    assert metric_value(twins, "nearest_image") > metric_value(strangers, "nearest_image") + 0.1
    assert twins.details["effective_images"] < strangers.details["effective_images"]


def test_a_collapsed_model_has_one_effective_item() -> None:
    _, data = clusters(n=13)
    results = SetDifficulty()(CollapsedEncoder(), data)
    assert metric_value(results, "nearest_image") == 1
    assert results.details["effective_images"] == 1.0
    assert [metric.chance for metric in results.metrics] == [None] * 3


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters(n=60)
    first, second = (
        SetDifficulty(max_items=50)(model, data),
        SetDifficulty(max_items=50)(model, shuffled(data)),
    )
    for metric in first.metrics:
        assert scores_by_id(first, metric.name) == scores_by_id(second, metric.name)
    assert first.details == second.details


def test_missing_input_is_reported() -> None:
    rows = [{"id": "0", "truth": "g"}, {"id": "1", "truth": "g"}]
    results = SetDifficulty()(CollapsedEncoder(), evaluation_set(rows))
    assert results.details == {"not_measured": "there are no two items with different truth keys"}
    alone = SetDifficulty()(CollapsedEncoder(), evaluation_set([{"id": "0"}, {"id": "1"}]))
    assert [metric.name for metric in alone.metrics] == ["nearest_image"]
