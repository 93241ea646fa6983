"""Composed retrieval: values worked by hand, both controls, and what is no query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domainclip.data.schema import CANDIDATES, CHANGE, REFERENCE
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.probes.composed import Composed, compose
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set, items
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value, scores_by_id, shuffled

# Each image is an object (first two axes) in a colour (last two).
IMAGES = {
    "fish red": [1, 0, 1, 0],
    "fish blue": [1, 0, 0, 1],
    "boat red": [0, 1, 1, 0],
    "boat blue": [0, 1, 0, 1],
}
TEXTS = {"in red": [0, 0, 1, 0], "in blue": [0, 0, 0, 1], "a fish": [1, 0, 0, 0], "a boat": [0, 1, 0, 0]}
MODEL = ArrayEncoder(IMAGES, TEXTS)


def row(name: str, reference: str = "", change: str = "", **more: Any) -> dict[str, Any]:
    candidates = more.pop("candidates", None)
    meta = {REFERENCE: reference, CHANGE: change} if change else {}
    return {"id": name, **more, "meta": meta | ({CANDIDATES: candidates} if candidates else {})}


def colour_changes(**more: Any) -> EvaluationSet:
    """Each image is its object in the other colour."""
    return evaluation_set(
        [
            row(name, f"{name[:4]} {'blue' if name.endswith('red') else 'red'}", f"in {name[5:]}", **more)
            for name in IMAGES
        ]
    )


def test_composition_by_hand() -> None:
    """½ (1, 0) + ½ (0, 1) points to 45 degrees; ¼ and ¾ to atan 3; opposite vectors leave no direction."""
    x, y = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert compose(x, y, 0.5)[0] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert compose(x, y, 0.75)[0] == pytest.approx([1 / 10**0.5, 3 / 10**0.5])
    assert compose(x, -x, 0.5)[0].tolist() == [0, 0]


def test_image_and_text_find_what_neither_finds_alone() -> None:
    """The fish is red or blue, and so is the boat: each half of the query leaves two of three images."""
    results = Composed()(MODEL, colour_changes())
    assert metric_value(results, "r1") == 1
    assert metric_value(results, "image_only_r1") == 0.5
    assert metric_value(results, "text_only_r1") == 0.5
    assert metric_of(results, "r1").chance == pytest.approx(1 / 3)
    assert [metric.name for metric in results.metrics] == [
        "r1",
        "image_only_r1",
        "text_only_r1",
    ]  # 5 of 3 is no rank
    assert results.primary == "r1"
    assert results.details["images"] == 3


def test_the_reference_is_no_answer() -> None:
    """At weight 0.3 the reference is nearest to its own query: 0.7 against 0.56 for the target."""
    assert metric_value(Composed(text_weight=0.3)(MODEL, colour_changes()), "r1") == 1


def test_a_change_that_is_not_the_images_own_is_not_found() -> None:
    """Negative control: each query asks for the colour that its reference has already."""
    wrong = ArrayEncoder(IMAGES, {"in red": TEXTS["in blue"], "in blue": TEXTS["in red"]})
    assert metric_value(Composed()(wrong, colour_changes()), "r1") < 1 / 3


def test_recall_among_the_candidates() -> None:
    """The red boat would be first for a fish "in red" with weight 1; among other candidates it is not asked."""
    rows = [row(name) for name in IMAGES]
    rows[0] = row("fish red", "fish blue", "in red", candidates=["boat blue", "fish blue"])
    results = Composed(text_weight=1.0)(MODEL, evaluation_set(rows))
    assert metric_value(results, "r1") == 0.5  # tied with the red boat
    assert metric_value(results, "subset_r1") == 1
    assert metric_of(results, "subset_r1").chance == 0.5  # of target and blue boat: the reference is none
    assert metric_value(results, "subset_r3") == 1


def test_candidates_of_the_target_alone_measure_nothing() -> None:
    rows = [row(name) for name in IMAGES]
    rows[0] = row("fish red", "fish blue", "in red", candidates=["fish red", "fish blue", "nowhere"])
    assert not [m for m in Composed()(MODEL, evaluation_set(rows)).metrics if m.name.startswith("subset")]


def test_an_image_in_two_rows_is_one_answer_and_equal_truth_keys_are_right() -> None:
    rows = [row(name) for name in IMAGES]
    rows[0] = row("fish red", "fish blue", "in red", image={"path": "a.png", "bytes": None})
    rows.append(row("again", "boat blue", "a fish", image={"path": "a.png", "bytes": None}))
    encoder = ArrayEncoder(IMAGES | {"again": IMAGES["fish red"]}, TEXTS)
    results = Composed()(encoder, evaluation_set(rows))
    assert results.details["images"] == 3
    assert scores_by_id(results, "r1")["fish red"] == 1
    # With weight 0 the blue boat ties with the red fish; with one truth key both are right.
    alike = ("fish red", "again", "boat blue")
    same = [{**each, "truth": "alike" if each["id"] in alike else each["id"]} for each in rows]
    assert scores_by_id(Composed(text_weight=0)(encoder, evaluation_set(same)), "r1")["fish red"] == 1
    assert scores_by_id(Composed(text_weight=0)(encoder, evaluation_set(rows)), "r1")["fish red"] == 0.5


def MODEL_OF(encoder: ArrayEncoder) -> ArrayEncoder:
    return encoder


def test_the_weight_is_chosen_on_the_validation_split() -> None:
    """The query (1 − w, w, 0) has cosine w with b, 0.8 (1 − w) + 0.5 w with c: right above 0.8 / 1.3 = 0.62."""
    images = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0.8, 0.5, 0.11**0.5]}
    encoder = ArrayEncoder(images, {"b": [0, 1, 0]})
    rows = [row("a"), row("b", "a", "b"), row("c")]
    data = replace(evaluation_set(rows), validation=items(rows))
    results = Composed(text_weight="validation")(encoder, data)
    assert results.details["text_weight"] == 0.7  # the nearest to ½ of 0.7 to 1
    assert results.details["weight_from"] == "the validation split, 1 queries"
    assert metric_value(results, "r1") == 1
    assert metric_value(Composed(text_weight=0.6)(encoder, data), "r1") == 0
    without = Composed(text_weight="validation")(encoder, evaluation_set(rows))
    assert without.details["text_weight"] == 0.5
    assert without.details["weight_from"] == "the default, since the validation split has no query"


def test_a_query_without_its_reference_is_counted() -> None:
    rows = [row("fish red", "gone", "in red"), row("fish blue", "fish blue", "in blue"), row("boat red")]
    results = Composed()(MODEL, evaluation_set(rows))
    assert results.details["not_measured"] == "there are no items with columns.reference and columns.change"
    assert results.details["without_reference_image"] == 2


def test_a_collapsed_model_scores_chance() -> None:
    results = Composed()(CollapsedEncoder(), colour_changes())
    for each in results.metrics:
        assert metric_value(results, each.name) == pytest.approx(each.chance)


def test_results_do_not_depend_on_row_order() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i:02d}" for i in range(30)]
    encoder = ArrayEncoder(
        {n: rng.normal(size=6) for n in names}, {f"t{n}": rng.normal(size=6) for n in names}
    )
    data = evaluation_set([row(n, names[i - 1], f"t{n}", candidates=names[:5]) for i, n in enumerate(names)])
    probe = Composed(max_items=20)
    for name in ("r1", "r10", "subset_r1"):
        assert scores_by_id(probe(encoder, data), name) == scores_by_id(probe(encoder, shuffled(data)), name)
    assert len(metric_of(probe(encoder, data), "r1").ids) == 20
