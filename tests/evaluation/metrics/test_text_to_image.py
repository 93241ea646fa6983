from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics import text_to_image
from domainclip.evaluation.metrics.text_to_image import recall_at_1, rounded_cosines
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.evaluation.probes.synthetic_sets import WordEncoder


def test_recall_at_1_by_hand() -> None:
    """Images 0 and 1 are of one truth key. The text of 0 retrieves 1, which is relevant; that of 2 ties 2 with 0."""
    rows = [{"id": "0", "truth": "g"}, {"id": "1", "truth": "g"}, {"id": "2"}, {"id": "3"}]
    texts = {"a": [0, 1, 0, 0], "b": [1, 0, 1, 0], "c": [0, 0, 0, 1]}
    model = WordEncoder({f"{i}": np.eye(4)[i] for i in range(4)}, texts)
    hits, guesses = recall_at_1(model, evaluation_set(rows), [0, 2, 2], ["a", "b", "c"])
    assert hits.tolist() == [1.0, 0.5, 0.0]
    assert guesses.tolist() == [0.5, 0.25, 0.25]


def test_items_with_equal_queries_are_all_relevant() -> None:
    model = WordEncoder({f"{i}": np.eye(3)[i] for i in range(3)}, {"A cat": [0, 1, 0]})
    hits, guesses = recall_at_1(
        model, evaluation_set([{"id": f"{i}"} for i in range(3)]), [0, 1], ["a  cat", "A cat"]
    )
    assert hits.tolist() == [1.0, 1.0]
    assert guesses == pytest.approx([1, 1])  # either image is right for every query


def test_items_that_have_a_query_as_a_further_text_are_relevant_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of item 0 retrieves image 1, whose item has it too; other further texts are no queries."""
    model = WordEncoder({f"{i}": np.eye(3)[i] for i in range(3)}, {"a": [0, 1, 0], "b": [0, 0, 1]})
    data, further = evaluation_set([{"id": f"{i}"} for i in range(3)]), [(1, " A"), (0, "unseen")]
    for block in (1, 512):
        monkeypatch.setattr(text_to_image, "_BLOCK", block)
        alone, _ = recall_at_1(model, data, [0, 2], ["a", "b"])
        hits, chances = recall_at_1(model, data, [0, 2], ["a", "b"], also_relevant=further)
        assert (alone.tolist(), hits.tolist()) == ([0.0, 1.0], [1.0, 1.0])
        assert chances == pytest.approx([2 / 3, 1 / 3])  # all images are equally common


def test_cosines_of_six_decimals() -> None:
    assert rounded_cosines(np.array([[1.0]]), np.array([[0.12345649], [0.1234565001]])).tolist() == [
        [0.123456, 0.123457]
    ]
