from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics.text_to_image import recall_at_1
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.evaluation.probes.synthetic_sets import WordEncoder


def test_recall_at_1_by_hand() -> None:
    """Images 0 and 1 are of one group. The text of 0 retrieves 1, which is relevant; that of 2 ties 2 with 0."""
    rows = [{"id": "0", "group": "g"}, {"id": "1", "group": "g"}, {"id": "2"}, {"id": "3"}]
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
