"""Masked language: the word is found among those of the batch, by hand; which word is taken out."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt

import pytest
import torch

from domainclip.objectives.base import Views
from domainclip.objectives.masked_language import MaskedLanguage
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.text_objectives import shown


def _views(words: torch.Tensor, mask: tuple[bool, bool] = (True, True)) -> Views:
    eye = torch.eye(2, dtype=torch.float64)
    texts = torch.stack([eye.flip(0), words], dim=1)  # (pair, rest or word, width)
    exists = torch.tensor(mask)[:, None].expand(2, 2)
    scale = torch.tensor(2.0, dtype=torch.float64)
    own = {"mixers": torch.stack([3 * eye, 4 * eye])}
    return Views(eye, eye, scale, extra_text=texts, extra_text_mask=exists, own_weights=own)


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    # The query of pair 0 is (3, 4) / 5: its word is the first axis at 0.6, the other one lies at 0.8.
    assert MaskedLanguage()(_views(eye)).item() == pytest.approx(log(1 + exp(0.4)), abs=1e-12)
    assert MaskedLanguage()(_views(eye.flip(0))).item() == pytest.approx(log(1 + exp(-0.4)), abs=1e-12)


def test_equal_words_and_pairs_without_one_are_no_negatives() -> None:
    word = torch.tensor([[1.0, 1.0]], dtype=torch.float64) / sqrt(2)
    assert MaskedLanguage()(_views(word.expand(2, 2))).item() == 0.0
    assert MaskedLanguage()(_views(torch.eye(2, dtype=torch.float64), (True, False))).item() == 0.0
    one = _views(torch.eye(2, dtype=torch.float64))
    assert one.extra_text is not None
    assert MaskedLanguage()(replace(one, extra_text=one.extra_text[:, :1])).item() == 0.0


def test_gradients_in_double_precision() -> None:
    check_gradients(MaskedLanguage(), filled_for(MaskedLanguage(), b=6, d=3))


def test_a_content_word_is_taken_out() -> None:
    pairs = [MaskedLanguage().extra_texts(shown("A red square on the left", seed=seed)) for seed in range(30)]
    assert {word for _, word in pairs} == {"red", "square", "left"}
    for rest, word in pairs:
        assert word not in rest.split()
    assert MaskedLanguage().extra_texts(shown("A square")) == []
    assert MaskedLanguage().extra_texts(shown("赤い四角")) == []
