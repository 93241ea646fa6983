"""Text self-supervision: NT-Xent by hand and as whole matrices; what the copies lack."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from domainclip.objectives.base import Views
from domainclip.objectives.text_self_supervision import TextSelfSupervision
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [2, 0, 2, 2, 2, 0], [0, 1, 2, 2, 3, 4]


def test_hand_worked() -> None:
    # Two pairs at right angles, copies at cosine 0.6 to each other, and to the other pair's at 0, 0.8 or so.
    said = torch.tensor(
        [[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.6, 0.8]]], dtype=torch.float64
    )
    views = Views(
        said[:, 0],
        said[:, 0],
        torch.tensor(1.0),
        extra_text=said,
        extra_text_mask=torch.ones(2, 2, dtype=torch.bool),
    )
    a = log(1 + (exp(0) + exp(0)) / exp(0.6))  # of (1, 0, 0)
    b = log(1 + (exp(0) + exp(0.48)) / exp(0.6))  # of (0.6, 0.8, 0)
    c = log(1 + (exp(0) + exp(0)) / exp(0.8))  # of (0, 0, 1)
    d = log(1 + (exp(0) + exp(0.48)) / exp(0.8))  # of (0, 0.6, 0.8)
    loss = TextSelfSupervision(temperature=1)(views).item()
    assert loss == pytest.approx((a + b + c + d) / 4, abs=1e-12)


def _nt_xent(views: Views) -> torch.Tensor:
    z = torch.cat([views.extra_text[:, 0], views.extra_text[:, 1]])
    b = len(z) // 2
    logits = (z @ z.T / 0.25).masked_fill(torch.eye(2 * b, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, (torch.arange(2 * b) + b) % (2 * b))


def test_equal_to_nt_xent_on_whole_matrices() -> None:
    views = batch([2] * 5)
    found = slopes(TextSelfSupervision(temperature=0.25), views)
    torch.testing.assert_close(found, slopes(_nt_xent, views), rtol=1e-12, atol=1e-14)


def test_equal_to_sentence_transformers() -> None:
    half = MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=4.0, directions=("query_to_doc", "query_to_query"), partition_mode="joint"
    )
    views = batch([2] * 5)
    one, other = views.extra_text[:, 0], views.extra_text[:, 1]
    expected = half.compute_loss_from_embeddings([one, other], None) + half.compute_loss_from_embeddings(
        [other, one], None
    )
    found = TextSelfSupervision(temperature=0.25)(views).item()
    assert found == pytest.approx(expected.item() / 2, abs=1e-12)


def test_without_copies_it_is_nothing() -> None:
    views, loss = batch(COUNTS, GROUP), TextSelfSupervision()
    nobody = replace(
        views, extra_text=views.extra_text[:, :1] * 0, extra_text_mask=torch.zeros(6, 1, dtype=torch.bool)
    )
    assert loss(nobody).item() == 0.0


@pytest.mark.parametrize("how", ["words", "span", "order"])
def test_what_a_copy_lacks(how: str) -> None:
    text = "one two three four five six seven eight nine ten"
    words = text.split()
    for seed in range(50):
        copies = TextSelfSupervision(damage=[how], share=0.3).extra_texts(shown(text, seed=seed))
        assert len(set(copies)) == 2
        for copy in copies:
            said = copy.split()
            if how == "order":
                assert sorted(said) == sorted(words)
                assert said != words
                continue
            assert len(said) == 7
            at = [words.index(word) for word in said]
            assert at == sorted(at)
            gone = sorted(set(range(10)) - set(at))
            if how == "span":
                assert gone == list(range(gone[0], gone[0] + 3))


def test_two_copies_or_none_never_the_caption_and_always_the_same() -> None:
    draw, part = random.Random(1), TextSelfSupervision()
    tally: Counter[int] = Counter()
    for seed in range(200):
        text = " ".join(draw.choices(["a", "dog", "cat", "red", "on", "two"], k=draw.randint(1, 9)))
        found = part.extra_texts(shown(text, seed=seed))
        assert text not in found
        assert len(set(found)) == len(found)
        assert found == part.extra_texts(shown(text, seed=seed))
        tally[len(found)] += 1
    assert set(tally) == {0, 2}
    assert tally[2] > 90
    assert part.extra_texts(shown("a a a a a")) in ([], ["a a a a", "a a a"])
    assert part.extra_texts(shown("three words only")) == []


def test_scripts_without_spaces() -> None:
    copies = TextSelfSupervision(damage=["span"]).extra_texts(shown("两只狗在路上打架的照片"))
    assert len(copies) == 2
    assert all(" " not in copy and len(copy) < 11 for copy in copies)
    assert len(TextSelfSupervision().extra_texts(shown("رجل يلعب مع كلب في الحديقة"))) == 2
