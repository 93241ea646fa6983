"""Image difference: values worked by hand, the control that both orders are, and what is no pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domainclip.data.schema import CHANGE, REFERENCE
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.probes.image_difference import ImageDifference
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value, scores_by_id, shuffled

TEXTS = {"a ball was added": [1, 0], "the ball is gone": [0, 1]}


def row(name: str, reference: str = "", change: str = "") -> dict[str, Any]:
    return {"id": name, "meta": {REFERENCE: reference, CHANGE: change}}


def pair() -> EvaluationSet:
    return evaluation_set(
        [row("with", "without", "a ball was added"), row("without", "with", "the ball is gone")]
    )


def test_a_model_that_sees_the_change_is_right_in_both_orders() -> None:
    results = ImageDifference()(ArrayEncoder({"with": [1, 0.2], "without": [0.2, 1]}, TEXTS), pair())
    assert scores_by_id(results, "accuracy") == {"with": 1, "without": 1}
    assert scores_by_id(results, "both_orders") == {"with": 1}  # the pair under its smaller id
    assert (metric_of(results, "accuracy").chance, metric_of(results, "both_orders").chance) == (0.5, 0.25)
    assert results.details["pairs_both_ways"] == 1


def test_a_model_that_prefers_one_image_is_right_in_no_pair() -> None:
    """The sentences point the same way, so the image with the larger cosine wins twice: once right."""
    texts = {text: [1, 1] for text in TEXTS}
    results = ImageDifference()(ArrayEncoder({"with": [1, 1], "without": [1, 0]}, texts), pair())
    assert metric_value(results, "accuracy") == 0.5
    assert metric_value(results, "both_orders") == 0


def test_a_model_that_reads_the_change_the_wrong_way_round() -> None:
    results = ImageDifference()(ArrayEncoder({"without": [1, 0], "with": [0, 1]}, TEXTS), pair())
    assert metric_value(results, "accuracy") == metric_value(results, "both_orders") == 0


def test_the_difference_of_the_embeddings_decides_alike() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        after, before, text = (v / np.linalg.norm(v) for v in rng.normal(size=(3, 5)))
        encoder = ArrayEncoder({"with": after, "without": before}, {"a ball was added": text})
        data = evaluation_set([row("with", "without", "a ball was added"), row("without")])
        right = metric_value(ImageDifference()(encoder, data), "accuracy")
        assert right == float(text @ (after - before) > 0)


def test_one_sentence_is_no_pair() -> None:
    data = evaluation_set([row("with", "without", "a ball was added"), row("without")])
    results = ImageDifference()(ArrayEncoder({"with": [1, 0], "without": [0, 1]}, TEXTS), data)
    assert [metric.name for metric in results.metrics] == ["accuracy"]


def test_a_collapsed_model_scores_chance() -> None:
    results = ImageDifference()(CollapsedEncoder(), pair())
    for each in results.metrics:
        assert metric_value(results, each.name) == pytest.approx(each.chance)


def test_results_do_not_depend_on_row_order_and_missing_images_are_counted() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i:02d}" for i in range(20)]
    encoder = ArrayEncoder(
        {n: rng.normal(size=4) for n in names}, {f"t{n}": rng.normal(size=4) for n in names}
    )
    rows = [row(n, names[i ^ 1], f"t{n}") for i, n in enumerate(names)]
    rows[3] = row("03", "gone", "t03")
    data, probe = evaluation_set(rows), ImageDifference(max_items=15)
    for name in ("accuracy", "both_orders"):
        assert scores_by_id(probe(encoder, data), name) == scores_by_id(probe(encoder, shuffled(data)), name)
    assert probe(encoder, data).details["without_reference_image"] == 1
    assert probe(encoder, data).details["sentences_in_the_set"] == 19


def test_missing_input_is_reported() -> None:
    results = ImageDifference()(CollapsedEncoder(), evaluation_set([row("a"), row("b")]))
    assert results.details == {"not_measured": "there are no items with columns.reference and columns.change"}
