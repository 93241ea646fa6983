from __future__ import annotations

import numpy as np
import pytest

from domainclip.data.text.sentences import split_sentences
from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.long_captions import LongCaptions, words
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)


def caption(name: str, length: int = 30) -> str:
    return f"A picture of {name}. Filler " + " ".join(["filler"] * (length - 6)) + " end."


def test_it_is_a_probe() -> None:
    assert isinstance(LongCaptions(), Probe)


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert len(words("一只很大的猫坐在红色的屋顶上")) == 14
    assert words("two words") == ["two", "words"]


def test_three_kinds_of_query_by_hand() -> None:
    """First sentences retrieve only image 0, whole captions both; equal tails are relevant for both."""
    texts = [caption("zero", 80), caption("one", 80)]
    split = {text: split_sentences(text)[0] for text in texts}
    tails = [" ".join(words(text)[55:]) for text in texts]
    vectors = {texts[0]: [1, 0], texts[1]: [0, 1], split[texts[0]]: [1, 0], split[texts[1]]: [1, 0.5]}
    vectors |= {tails[0]: [0, 1]}
    assert tails[0] == tails[1]
    rows = [{"id": f"{i}", "texts": ["short", text]} for i, text in enumerate(texts)]
    results = LongCaptions()(WordEncoder({"0": [1, 0], "1": [0, 1]}, vectors), evaluation_set(rows))
    assert scores_by_id(results, "whole_r1") == {"0": 1.0, "1": 1.0}
    assert scores_by_id(results, "first_sentence_r1") == {"0": 1.0, "1": 0.0}
    # The tails are equal, so either image is relevant for them.
    assert scores_by_id(results, "tail_r1") == {"0": 1.0, "1": 1.0}
    assert metric_of(results, "whole_r1").chance == 0.5
    assert metric_of(results, "tail_r1").chance == 1.0
    assert results.details == {"long_captions": 2, "asked": 2, "with_a_tail": 2, "window": 55}


def test_captions_are_relevant_for_all_images_of_their_truth_key() -> None:
    text = caption("zero")
    rows = [{"id": "0", "texts": [text], "truth": "g"}, {"id": "1", "truth": "g"}, {"id": "2"}]
    vectors = {text: [0, 1, 0], split_sentences(text)[0]: [0, 0, 1]}
    model = WordEncoder({"0": [1, 0, 0], "1": [0, 1, 0], "2": [0, 0, 1]}, vectors)
    results = LongCaptions()(model, evaluation_set(rows))
    assert metric_value(results, "whole_r1") == 1
    assert metric_value(results, "first_sentence_r1") == 0
    assert metric_of(results, "whole_r1").chance == pytest.approx(2 / 3)


def test_an_item_with_an_equal_extract_is_relevant_without_being_queried() -> None:
    text = caption("zero")
    rows = [
        {"id": "0", "texts": [text]},
        {"id": "1", "texts": [text]},
        {"id": "2", "texts": [caption("two")]},
    ]
    vectors = {text: [0, 1, 0], split_sentences(text)[0]: [0, 1, 0]}
    model = WordEncoder({f"{i}": np.eye(3)[i] for i in range(3)}, vectors)
    for max_items in (1, 2, 3):
        results = LongCaptions(max_items=max_items)(model, evaluation_set(rows))
        scores = scores_by_id(results, "first_sentence_r1")
        assert {name: score for name, score in scores.items() if name != "2"} == dict.fromkeys(
            set(scores) - {"2"}, 1.0
        )
        assert {"0", "1"} & set(scores) or max_items == 1


def test_metrics_by_length_need_enough_items() -> None:
    rows = [{"id": f"{i:02d}", "texts": [caption(f"n{i}", 25 if i < 12 else 70)]} for i in range(21)]
    model = WordEncoder({row["id"]: np.eye(21)[i] for i, row in enumerate(rows)})  # type: ignore[misc]
    results = LongCaptions()(model, evaluation_set(rows))
    names = [metric.name for metric in results.metrics]
    assert names == ["whole_r1", "whole_r1/20 to 39 words", "first_sentence_r1", "tail_r1"]
    assert len(metric_of(results, "whole_r1/20 to 39 words").ids) == 12
    assert len(metric_of(results, "tail_r1").ids) == 9


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i:02d}", "texts": [caption(f"n{i % 5}", 70)], "group": f"{i // 2}"} for i in range(21)]
    results = LongCaptions()(CollapsedEncoder(), evaluation_set(rows))
    for metric in results.metrics:
        assert metric.chance is not None  # the commonest caption is no worse than a random image
        assert metric_value(results, metric.name) <= metric.chance + 1e-9


def test_results_do_not_depend_on_row_order() -> None:
    rows = [{"id": f"{i:02d}", "texts": [caption(f"n{i}", 70)]} for i in range(40)]
    model = WordEncoder({row["id"]: np.random.default_rng(i).normal(size=5) for i, row in enumerate(rows)})  # type: ignore[misc]
    data = evaluation_set(rows)
    first, second = LongCaptions(max_items=30)(model, data), LongCaptions(max_items=30)(model, shuffled(data))
    for metric in first.metrics:
        assert scores_by_id(first, metric.name) == scores_by_id(second, metric.name)


@pytest.mark.parametrize("text", ["short. very short.", "word " * 50, ""])
def test_missing_input_is_reported(text: str) -> None:
    data = evaluation_set([{"id": "0", "texts": [text]}, {"id": "1", "texts": [text]}])
    results = LongCaptions()(CollapsedEncoder(), data)
    assert results.details == {
        "not_measured": "there are no captions of 20 words or more and several sentences"
    }
