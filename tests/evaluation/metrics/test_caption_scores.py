"""Scores of written captions: BLEU as torchmetrics has it, CIDEr-D worked by hand."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score

from domainclip.evaluation.metrics.caption_scores import bleu, bleu_counts, caption_words, cider

WRITTEN = [
    "a red circle on the left of the image",
    "the the the the",
    "two dots on a white ground near a line",
]
REFERENCES = [
    ["a red circle on the left", "one red circle on the left of the picture"],
    ["the cat is on the mat", "there is a cat"],
    ["two dots on a white ground", "two small dots"],
]


def test_words() -> None:
    assert caption_words("A red, RED circle.") == ["a", "red", "red", "circle"]
    assert caption_words("...") == []
    assert caption_words("一张红色的圆") == ["一张", "红色", "的圆"]


def test_parity_with_torchmetrics_whole_and_for_each_resample() -> None:
    counts = bleu_counts(WRITTEN, REFERENCES)
    weights = np.array([[1, 1, 1], [2, 0, 1], [1, 0, 0], [0, 3, 0]])
    for row, value in zip(weights, bleu(counts, weights), strict=True):
        drawn = [at for at, times in enumerate(row) for _ in range(times)]
        expected = bleu_score([WRITTEN[at] for at in drawn], [REFERENCES[at] for at in drawn])
        assert value == pytest.approx(float(expected), abs=1e-6)
    assert bleu(counts, np.array([[0, 3, 0]]))[0] == 0  # no two words of it follow each other in a reference
    assert bleu(bleu_counts(WRITTEN[:1], [WRITTEN[:1]]), np.ones((1, 1)))[0] == pytest.approx(1)


def test_cider_by_hand() -> None:
    """Two items of two words: one-grams and two-grams count, the orders above have none."""
    references = [["red circle"], ["blue circle"]]
    assert cider(["red circle", "blue circle"], references) == pytest.approx([5.0, 5.0])  # 10 (1 + 1) / 4
    # "circle" is in both references and weighs log(2 / 2) = 0; "red" weighs log 2. Of "red red" one counts:
    # 1 · 1 / (2 · 1) for words; its pair of words is in no reference.
    assert cider(["red red", "green"], references)[0] == pytest.approx(10 * 0.5 / 4)
    assert cider(["red red", "green"], references)[1] == 0
    # Three words instead of two: the penalty exp(−1 / 72); "red" is one of three that weigh log 2 or more.
    value = cider(["red round circle", "blue circle"], references)[0]
    cosine = log(2) / sqrt(log(2) ** 2 + log(2) ** 2)
    assert value == pytest.approx(10 * cosine / 4 * exp(-1 / 72))


def test_captions_of_other_images_score_lower() -> None:
    right = cider([others[0] for others in REFERENCES], REFERENCES).mean()
    wrong = cider([others[0] for others in [*REFERENCES[1:], REFERENCES[0]]], REFERENCES).mean()
    assert right > 5 * wrong
