from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.paraphrase import Paraphrase, _overlaps
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)


def test_it_is_a_probe() -> None:
    assert isinstance(Paraphrase(), Probe)


def test_overlaps_by_hand() -> None:
    """Lists a b c d and a c e b: overlaps 1, 1, 2, 3 at depths 1 to 4."""
    a = np.array([[5.0, 4, 3, 2, 1]])
    b = np.array([[5.0, 2, 4, 1, 3]])
    assert _overlaps(a, b, 4).tolist() == [[1, 1, 2, 3]]


def test_overlaps_of_ties_are_expected_values() -> None:
    """Against all orders of the ties, independently for each list."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 3, size=(2, 5)).astype(float)
        lists = [
            [order for order in permutations(range(5)) if all(s[x] >= s[y] for x, y in pairwise(order))]
            for s in (a, b)
        ]
        expected = [
            np.mean([len(set(a[:d]) & set(b[:d])) for a in lists[0] for b in lists[1]]) for d in range(1, 5)
        ]
        assert _overlaps(a[None], b[None], 4)[0] == pytest.approx(expected)


def test_both_metrics_by_hand() -> None:
    """Five images on axes; two captions with the top-2 lists 0 1 and 0 2."""
    one, two = [3, 2, 1, 0.5, 0.1], [3, 1, 2, 0.5, 0.1]
    rows = [{"id": f"{i}"} for i in range(5)]
    rows[0] |= {"texts": ["one", "One", "two", "three"], "language": "en"}
    model = WordEncoder({f"{i}": np.eye(5)[i] for i in range(5)}, {"One": one, "two": two})
    results = Paraphrase(depth=2)(model, evaluation_set(rows))
    assert metric_value(results, "average_overlap_2") == pytest.approx((1 + 1 / 2) / 2)
    assert metric_value(results, "jaccard_2") == pytest.approx(1 / 3)
    assert metric_of(results, "average_overlap_2").chance == pytest.approx((1 / 5 + 2 / 5) / 2)
    assert metric_of(results, "jaccard_2").chance == pytest.approx(0.8 / 3.2)
    assert results.details == {"items": 1, "with_two_wordings": 1, "images": 5}


def test_overlap_is_full_for_equal_embeddings_and_small_for_random_ones() -> None:
    rows = [{"id": f"{i:02d}", "texts": [f"a {i}", f"b {i}"]} for i in range(60)]
    images = {row["id"]: np.random.default_rng(i).normal(size=8) for i, row in enumerate(rows)}
    same = {f"{w} {i}": np.random.default_rng(i).normal(size=8) for i in range(60) for w in "ab"}
    data = evaluation_set(rows)
    assert metric_value(Paraphrase()(WordEncoder(images, same), data), "jaccard_10") == 1  # type: ignore[arg-type]
    random_texts = Paraphrase()(WordEncoder(images), data)  # type: ignore[arg-type]
    assert metric_value(random_texts, "average_overlap_10") == pytest.approx(
        metric_of(random_texts, "average_overlap_10").chance, abs=0.05
    )


def test_captions_of_two_languages_are_no_paraphrases() -> None:
    data = evaluation_set([{"id": "0", "texts": ["a", "A "]}, {"id": "1", "texts": ["b"]}])
    assert Paraphrase()(CollapsedEncoder(), data).details == {
        "not_measured": "there are no items with two captions of one language"
    }


@pytest.mark.parametrize("n", [3, 11, 23])
def test_a_collapsed_model_scores_chance(n: int) -> None:
    rows = [{"id": f"{i}", "texts": [f"a {i}", f"b {i}"]} for i in range(n)]
    results = Paraphrase()(CollapsedEncoder(), evaluation_set(rows))
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_results_do_not_depend_on_row_order() -> None:
    rows = [{"id": f"{i:02d}", "texts": [f"a {i}", f"b {i}"]} for i in range(40)]
    model = WordEncoder({row["id"]: np.random.default_rng(i).normal(size=8) for i, row in enumerate(rows)})  # type: ignore[misc]
    data = evaluation_set(rows)
    first, second = Paraphrase(max_items=30)(model, data), Paraphrase(max_items=30)(model, shuffled(data))
    for metric in first.metrics:
        assert scores_by_id(first, metric.name) == scores_by_id(second, metric.name)
