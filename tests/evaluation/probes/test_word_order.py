from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from domainclip.data.text.words import split_words
from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.word_order import WordOrder, orders
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)

CAPTION = "a red square above the blue circle on white ground"


def test_it_is_a_probe() -> None:
    assert isinstance(WordOrder(), Probe)


def test_every_variant_has_the_same_words_in_another_order() -> None:
    made = orders(CAPTION, "item 1")
    assert made.pop("") == CAPTION
    assert len(made) == 5
    for other in made.values():
        assert Counter(other.split()) == Counter(CAPTION.split())
        assert other != CAPTION


def test_each_rule_makes_its_change() -> None:
    for item in range(20):
        made = orders(CAPTION, str(item))
        words = CAPTION.split()
        moved = [i for i, word in enumerate(made["neighbours swapped"].split()) if word != words[i]]
        assert len(moved) == 2
        assert moved[1] == moved[0] + 1
        longest = made["longest words swapped"].split()
        assert (longest[2], longest[6]) == ("circle", "square")
        inside = made["inside trigrams shuffled"].split()
        assert all(set(inside[i : i + 3]) == set(words[i : i + 3]) for i in range(0, 10, 3))
        trigrams = {" ".join(words[i : i + 3]) for i in range(0, 10, 3)}
        assert all(trigram in made["trigrams shuffled"] for trigram in trigrams)


def test_orders_are_a_function_of_the_item_alone() -> None:
    assert orders(CAPTION, "a") == orders(CAPTION, "a")
    assert len({orders(CAPTION, str(i))["all words shuffled"] for i in range(20)}) > 15


@pytest.mark.parametrize("text", ["too few words", "same same same same", ""])
def test_captions_without_another_order_are_left_out(text: str) -> None:
    assert orders(text, "a") == {}


def test_scripts_without_spaces_are_reordered_in_character_pairs() -> None:
    assert split_words("一张红色的猫的照片") == (["一张", "红色", "的猫", "的照", "片"], "")
    made = orders("一张红色的猫的照片", "a")
    assert len(made) > 2
    assert all(Counter(text) == Counter("一张红色的猫的照片") for text in made.values())
    assert split_words("кошка на красной крыше") == (["кошка", "на", "красной", "крыше"], " ")


def test_long_captions_are_cut_before_they_are_reordered() -> None:
    made = orders(" ".join(f"w{i}" for i in range(200)), "a")
    assert {len(text.split()) for text in made.values()} == {40}


def test_accuracy_and_ties_by_hand() -> None:
    """Three items: one caption is above all variants, one ties with two of them, one is below one."""
    texts = {f"{i} red square above blue circle": [1.0, 0.0] for i in range(3)}
    rows = [{"id": str(i), "texts": [text]} for i, text in enumerate(texts)]
    for item, text in enumerate(list(texts)):
        for rank, (rule, other) in enumerate(orders(text, str(item)).items()):
            if rule:
                tied = item == 1 and rank < 3
                texts[other] = [1.0, 0.0] if tied or (item == 2 and rank > 1) else [0.9, 0.1]
    beaten = orders("2 red square above blue circle", "2")["neighbours swapped"]
    texts[beaten] = [1.0, 0.1]
    model = WordEncoder({"0": [1, 0], "1": [1, 0], "2": [1, 0.1]}, texts)
    results = WordOrder()(model, evaluation_set(rows))
    assert scores_by_id(results, "accuracy") == pytest.approx({"0": 1.0, "1": 1 / 3, "2": 0.0})
    assert metric_of(results, "accuracy").chance == pytest.approx(
        np.mean([1 / len(orders(row["texts"][0], row["id"])) for row in rows])
    )
    assert scores_by_id(results, "accuracy/neighbours swapped") == {"0": 1.0, "1": 0.5, "2": 0.0}


def test_a_model_of_words_without_order_scores_chance() -> None:
    """The negative control of the paper: a bag of words ties on every order."""

    class Bag(WordEncoder):
        def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return super().texts([" ".join(sorted(text.split())) for text in texts])

    rows = [{"id": f"{i}", "texts": [f"{i} {CAPTION}"]} for i in range(30)]
    images = {f"{i}": np.random.default_rng(i).normal(size=6) for i in range(30)}
    results = WordOrder()(Bag(images), evaluation_set(rows))
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i}", "texts": [f"{i} {CAPTION}"]} for i in range(7)]
    results = WordOrder()(CollapsedEncoder(), evaluation_set(rows))
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_row_order_changes_neither_results_nor_sample() -> None:
    rows = [{"id": f"{i}", "texts": [f"{i} {CAPTION}"]} for i in range(30)]
    model = WordEncoder({f"{i}": np.random.default_rng(i).normal(size=6) for i in range(30)})
    data = evaluation_set(rows)
    first, second = WordOrder(max_items=20)(model, data), WordOrder(max_items=20)(model, shuffled(data))
    assert scores_by_id(first, "accuracy") == scores_by_id(second, "accuracy")
    assert first.details == {"items": 20, "with_captions_long_enough": 30}


def test_missing_input_is_reported() -> None:
    results = WordOrder()(CollapsedEncoder(), evaluation_set([{"id": "0", "texts": ["a cat"]}]))
    assert results.details == {"not_measured": "there are no captions of four words that can be reordered"}
