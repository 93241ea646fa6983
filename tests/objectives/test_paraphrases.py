"""Paraphrases: the loss by hand, its two terms, and which text is the paraphrase."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.paraphrases import Paraphrases
from tests.support.matches import grouped
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [1, 0, 1, 1, 1, 1], [0, 1, 2, 2, 3, 4]


def test_hand_worked() -> None:
    # Scale 1. Paraphrases at cosine 0.6 to their captions and pictures, 0.8 to the others'.
    eye = torch.eye(2, dtype=torch.float64)
    said = torch.tensor([[[0.6, 0.8]], [[0.8, 0.6]]], dtype=torch.float64)
    views = Views(
        eye, eye, torch.tensor(1.0), extra_text=said, extra_text_mask=torch.ones(2, 1, dtype=torch.bool)
    )
    assert Paraphrases()(views).item() == pytest.approx(log(1 + exp(0.2)), abs=1e-12)


def test_its_two_terms() -> None:
    views = batch([1] * 6, GROUP)
    pictures = Contrastive()(replace(views, text=views.extra_text[:, 0])).item()
    texts = Contrastive()(replace(views, image=views.extra_text[:, 0])).item()
    assert Paraphrases(share=1)(views).item() == pytest.approx(pictures, abs=1e-12)
    assert Paraphrases(share=0)(views).item() == pytest.approx(texts, abs=1e-12)
    assert Paraphrases(share=0.25)(views).item() == pytest.approx(0.25 * pictures + 0.75 * texts, abs=1e-12)


def test_equal_wordings_of_two_pairs_are_no_negatives() -> None:
    views = replace(batch([1, 1, 1]), matches=grouped(range(3)))
    said = views.extra_text.clone()
    said[1] = said[0]
    mask = torch.tensor([[True], [False], [True]])
    for loss in (Paraphrases(share=0), Paraphrases(share=1)):
        first = [
            slopes(
                lambda v, loss=loss: loss(replace(v, local_rows=slice(0, 1))),
                replace(views, extra_text=said, extra_text_mask=m),
            )[1]
            for m in (views.extra_text_mask, mask)
        ]
        # What the first pair's picture or caption learns is as if the second had no paraphrase, text side.
        name = "text" if loss.share == 0 else "image"
        away = first[0]["extra_text"][1]
        assert not away.any()
        assert first[0][name][0].any()


def test_without_a_paraphrase_it_is_nothing() -> None:
    views = batch(COUNTS, GROUP)
    none = replace(views, extra_text_mask=torch.zeros_like(views.extra_text_mask))
    assert Paraphrases(share=0.3)(none).item() == 0.0


def test_which_paraphrase() -> None:
    pair = shown("a dog", "ein Hund", "a hound", "a dog on grass", languages=["en", "de", "en", "en"])
    assert {tuple(Paraphrases().extra_texts(replace(pair, seed=s))) for s in range(30)} == {("a hound",)}
    assert Paraphrases().extra_texts(shown("a dog", "ein Hund", languages=["en", "de"])) == []
    assert Paraphrases().extra_texts(shown("a dog", "a hound")) == ["a hound"]  # of no language: alike
    assert Paraphrases(column="p").extra_texts(replace(pair, meta={"p": "this is a dog"})) == [
        "this is a dog"
    ]
    assert Paraphrases(column="p").extra_texts(replace(pair, meta={"p": ["a dog", ""]})) == []
    assert Paraphrases(column="p").extra_texts(pair) == []
    # A sentence of a report: the report that it stands in is no paraphrase of it.
    report = shown("No mass. Clear lungs.", "Lungs are clear.", languages=["en", "en"])
    assert Paraphrases().extra_texts(replace(report, text="Clear lungs.")) == ["Lungs are clear."]
