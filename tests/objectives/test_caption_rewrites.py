"""Caption rewrites: both wordings right in one step, and ALIP's weights worked by hand."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.caption_rewrites import CaptionRewrites
from domainclip.objectives.contrastive import Contrastive
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [1, 0, 1, 1, 1, 0], [0, 1, 2, 2, 3, 4]


def test_all_rewritten_is_the_mean_of_two_contrastive_losses() -> None:
    views = batch([1] * 6, GROUP)
    other = replace(views, text=views.extra_text[:, 0])
    for share in (0.5, 0.2):
        expected = (1 - share) * Contrastive()(views) + share * Contrastive()(other)
        assert CaptionRewrites(share=share)(views).item() == pytest.approx(expected.item(), abs=1e-12)


def test_without_rewrites_it_is_contrastive() -> None:
    views = batch(COUNTS, GROUP)
    nobody = replace(views, extra_text_mask=torch.zeros_like(views.extra_text_mask))
    for loss in (CaptionRewrites(), CaptionRewrites(agreement=2.0)):
        torch.testing.assert_close(slopes(loss, nobody), slopes(Contrastive(), views), rtol=1e-12, atol=1e-14)
        assert loss(views).item() != pytest.approx(loss(nobody).item(), abs=1e-3)


def test_weights_by_hand() -> None:
    # Captions and rewrites agree by 1.0 and 0.6, mean 0.8: the second pair is doubted, by e^{2 · −0.2}.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    said = torch.tensor([[[1.0, 0.0]], [[0.8, 0.6]]], dtype=torch.float64)
    views = Views(
        image, text, torch.tensor(1.0), extra_text=said, extra_text_mask=torch.ones(2, 1, dtype=torch.bool)
    )
    # x·y is 1 and 1, mean 1; x·ỹ is 1 and 0.6, mean 0.8.
    u, v = [1.0, exp(2 * -0.2) * exp(0.0)], [1.0, exp(2 * -0.2) * exp(2 * -0.2)]

    def per_pair(texts: torch.Tensor) -> torch.Tensor:
        logits, own = image @ texts.T, torch.arange(2)
        return (
            F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")
        ) / 2

    plain, other = per_pair(text), per_pair(said[:, 0])
    expected = sum(0.5 * u[i] * plain[i] + 0.5 * v[i] * other[i] for i in range(2)) / 2
    assert CaptionRewrites(agreement=2.0)(views).item() == pytest.approx(float(expected), abs=1e-12)
    assert CaptionRewrites()(views).item() == pytest.approx(float((plain + other).mean() / 2), abs=1e-12)


def test_which_rewrite() -> None:
    written = [["a hound", "en"], ["ein Köter", "de"]]
    assert CaptionRewrites().extra_texts(
        shown("a dog", "ein Hund", languages=["en", "de"], rewrites=written)
    ) == ["a hound"]
    german = shown("ein Hund", "a dog", languages=["de", "en"], rewrites=written)
    assert CaptionRewrites().extra_texts(german) == ["ein Köter"]
    # Where the epoch shows a rewrite, the caption is the other wording.
    hound = replace(shown("a dog", "ein Hund", languages=["en", "de"], rewrites=written), text="a hound")
    assert CaptionRewrites().extra_texts(hound) == ["a dog"]
    assert CaptionRewrites().extra_texts(shown("a dog")) == []
    only_other = shown("un chien", languages=["fr"], rewrites=[["a hound", "en"]])
    assert CaptionRewrites().extra_texts(only_other) == ["a hound"]
    many = [[f"dog number {n}", "en"] for n in range(9)]
    drawn = {
        tuple(CaptionRewrites().extra_texts(shown("a dog", languages=["en"], seed=s, rewrites=many)))
        for s in range(40)
    }
    assert len(drawn) > 5
    assert all(len(one) == 1 for one in drawn)
