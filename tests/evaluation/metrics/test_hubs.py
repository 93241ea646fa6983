"""A caption that answers many images is named, and one that answers few is not."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.evaluation.metrics.hubs import first_answer_counts, hub_warning
from domainclip.evaluation.metrics.ranking import rank_answers


def test_first_answers_by_hand() -> None:
    answers = np.eye(3)
    queries = np.array([[1, 0.2, 0], [0.9, 0, 0.1], [0, 1, 0], [0.5, 0.5, 0]])
    assert first_answer_counts(queries, answers).tolist() == [3, 1, 0]


def test_a_hub_and_a_common_caption_are_named() -> None:
    own = csr_matrix(np.eye(40))
    assert hub_warning(np.array([10, *[1] * 30]), own) == ""
    text = hub_warning(np.array([11, *[1] * 29]), own)
    assert text.startswith("one caption is the first answer to 11 of 40 images: intervals and verdicts hold")
    half = np.eye(40)
    half[:20, 0] = 1
    assert "one caption is right for 20 of 40 images" in hub_warning(np.ones(40, int), csr_matrix(half))


def test_first_answers_are_those_of_the_ranking() -> None:
    draw = np.random.default_rng(0)
    queries, answers = draw.normal(size=(50, 8)), draw.normal(size=(20, 8))
    queries, answers = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, answers))
    counts = first_answer_counts(queries, answers)
    for answer in range(20):
        (ranks,) = rank_answers(queries, answers, [csr_matrix(np.eye(20)[[answer] * 50])])
        assert counts[answer] == (ranks.expected_rank() == 1).sum()
