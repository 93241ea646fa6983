from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from domainclip.contracts import Metric, Probe, Results
from domainclip.probes import retrieval
from domainclip.probes.retrieval import Retrieval, Standing
from tests.probes.arrays import ArrayEncoder, CollapsedEncoder, evaluation_set


def metric_of(results: Results, name: str) -> Metric:
    return next(metric for metric in results.metrics if metric.name == name)


def figure(results: Results, name: str) -> float:
    metric = metric_of(results, name)
    return float(metric.aggregate(metric.scores, np.ones((1, len(metric.scores))))[0])


def random_model(rows: list[dict[str, Any]], seed: int = 0, width: int = 3) -> ArrayEncoder:
    rng = np.random.default_rng(seed)
    texts = sorted({text for row in rows for text in row["texts"]})
    images = {str(row["id"]): rng.normal(size=width).tolist() for row in rows}
    return ArrayEncoder(images, {text: rng.normal(size=width).tolist() for text in texts})


def test_it_is_a_probe() -> None:
    assert isinstance(Retrieval(), Probe)


@pytest.mark.parametrize(("above", "tied"), list(product(range(4), range(1, 5))))
def test_ties_are_the_mean_over_all_their_orders(above: int, tied: int) -> None:
    """Every order of the tied answers is tried."""
    for right in range(1, tied + 1):
        one_right = np.array([right])
        standing = Standing(np.array([above]), np.array([tied]), one_right, one_right, size=12)
        firsts = [order.index(True) for order in permutations([True] * right + [False] * (tied - right))]
        assert standing.rank() == pytest.approx(np.mean([above + first + 1 for first in firsts]))
        for k in range(1, 9):
            assert standing.hit(k) == pytest.approx(np.mean([above + first < k for first in firsts]))


def test_recall_and_rank_by_hand() -> None:
    rows = [{"id": "a", "texts": ["one", "two"]}, {"id": "b", "texts": ["three"]}]
    images: dict[str, list[float]] = {"a": [1, 0, 0], "b": [0, 1, 0]}
    # Image a: "three" .9, "one" .6, "two" 0. Image b: "two" .8, "three" .436, "one" 0.
    texts = {"one": [0.6, 0, 0.8], "two": [0, 0.8, 0.6], "three": [0.9, 0.436, 0]}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_of(results, "image_to_text_r1").scores.tolist() == [0, 0]
    assert metric_of(results, "image_to_text_median_rank").scores.tolist() == [2, 2]
    assert metric_of(results, "text_to_image_r1").scores.tolist() == [1, 0, 0]
    assert metric_of(results, "text_to_image_r1").ids == ["a#0", "a#1", "b#2"]
    assert metric_of(results, "image_to_text_r1").chance == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert results.primary == "image_to_text_r1"
    assert metric_of(results, "image_to_text_median_rank").higher_is_better is False
    assert [m.name for m in results.metrics if "_r5" in m.name] == []  # a gallery of three


def test_a_caption_under_several_images_is_right_for_all_of_them() -> None:
    rows = [
        {"id": f"{i:02d}", "texts": [text]} for i, text in enumerate(["No finding.", "no  FINDING.", "mass"])
    ]
    images: dict[str, list[float]] = {"00": [1, 0], "01": [1, 0.1], "02": [0, 1]}
    texts = {"No finding.": [1, 0], "no  FINDING.": [1, 0], "mass": [0, 1]}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert figure(results, "image_to_text_r1") == 1
    # The caption finds image 00 first, which is right for the item 01 that says the same.
    assert metric_of(results, "text_to_image_r1").scores.tolist() == [1, 1, 1]
    assert results.details["galleries"] == {"all": {"images": 3, "captions": 2}}
    assert metric_of(results, "image_to_text_r1").chance == pytest.approx(1 / 2)
    assert metric_of(results, "text_to_image_r1").chance == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)


@pytest.mark.parametrize(("group_truth", "expected"), [(True, [1, 1, 1]), (False, [0, 0, 1])])
def test_images_of_one_group_accept_each_others_captions(group_truth: bool, expected: list[int]) -> None:
    rows = [{"id": name, "texts": [f"text {name}"], "group": name[0]} for name in ("m31a", "m31b", "n7")]
    images = {"m31a": [1, 0, 0], "m31b": [0, 1, 0], "n7": [0, 0, 1]}
    texts = {"text m31a": [0, 1, 0], "text m31b": [1, 0, 0], "text n7": [0, 0, 1]}
    results = Retrieval(group_truth=group_truth)(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_of(results, "image_to_text_r1").scores.tolist() == expected
    assert metric_of(results, "text_to_image_r1").scores.tolist() == expected


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i}", "texts": [f"text {i}"]} for i in range(10)]
    results = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert figure(results, "image_to_text_r1") == pytest.approx(0.1)
    assert figure(results, "text_to_image_r5") == pytest.approx(0.5)
    assert figure(results, "text_to_image_median_rank") == 5.5
    for metric in results.metrics:
        assert metric.chance == pytest.approx(figure(results, metric.name))


def brute_force(rows: list[dict[str, Any]], model: ArrayEncoder) -> dict[str, float]:
    """The definitions, read aloud: one loop a query, no blocks, no sparse matrices."""
    data = evaluation_set(rows)
    images = model.images(data.items).astype(float)
    distinct = sorted({str(text) for row in rows for text in row["texts"]})
    texts = model.texts(distinct).astype(float)
    cosines = np.round(images @ texts.T, 6)

    def right(item: dict[str, Any], text: str) -> bool:
        return any(text in other["texts"] and other["group"] == item["group"] for other in rows)

    truth = np.array([[right(row, text) for text in distinct] for row in rows])
    to_text = [truth[i, np.argsort(-cosines[i])[:5]].any() for i, row in enumerate(rows) if row["texts"]]
    told = [i for i, row in enumerate(rows) if row["texts"]]
    to_image = []
    for row in rows:
        for text in row["texts"]:
            column = distinct.index(text)
            best = np.argsort(-cosines[told, column])[:5]
            to_image.append(truth[np.array(told)[best], column].any())
    return {"image_to_text_r5": float(np.mean(to_text)), "text_to_image_r5": float(np.mean(to_image))}


@pytest.mark.parametrize("block", [1, 7, 512])
def test_blocks_equal_the_plain_definition_on_a_ragged_set(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = [
        {
            "id": f"{i:02d}",
            "texts": [f"text {t}" for t in rng.choice(25, rng.integers(0, 4), replace=False)],
            "group": f"g{rng.integers(0, 20)}",
        }
        for i in range(37)
    ]
    model = random_model(rows)
    results = Retrieval()(model, evaluation_set(rows))
    for name, expected in brute_force(rows, model).items():
        assert figure(results, name) == pytest.approx(expected)
    assert results.details["items_without_text"] == sum(not row["texts"] for row in rows)


def test_each_language_has_its_own_gallery() -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": f"{i}{language}",
            "texts": [f"{language} {i}"],
            "language": language,
            "group": f"{i}{language}",
        }
        for i in range(4)
        for language in ("de", "en")
    ]
    images = {str(row["id"]): np.eye(5)[i // 2].tolist() for i, row in enumerate(rows)}
    texts: dict[str, list[float]] = {f"en {i}": np.eye(5)[i].tolist() for i in range(4)}
    texts |= {f"de {i}": [0, 0, 0, 0, 1] for i in range(4)}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert figure(results, "image_to_text_r1/en") == 1
    assert figure(results, "image_to_text_r1/de") == pytest.approx(1 / 4)  # four captions alike
    assert figure(results, "image_to_text_r1") == pytest.approx((1 + 1 / 4) / 2)
    assert results.details["galleries"] == {
        "de": {"images": 4, "captions": 4},
        "en": {"images": 4, "captions": 4},
    }


def test_what_cannot_be_measured_says_why() -> None:
    rows = [{"id": "0", "texts": ["one"]}, {"id": "1", "texts": ["One "]}, {"id": "2", "texts": [" "]}]
    results = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert (results.metrics, results.primary) == ([], "")
    assert results.details == {"not_measured": "there are no two different captions"}
