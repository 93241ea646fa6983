"""Sub-captions: the loss by hand and as an open definition; sentences that two reports share; patches."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.patch_grouping import contrast_within_pair, group_patches
from domainclip.objectives.report_sentences import ReportSentences
from tests.support.matches import either, grouped
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [3, 1, 2, 0, 3, 1], [0, 1, 2, 2, 3, 4]
BOTH = pytest.mark.parametrize("patches", [False, True])


def test_what_it_needs() -> None:
    assert ReportSentences().needs == {"extra_text"}
    assert ReportSentences(patches=True).needs == {"extra_text", "image_tokens"}


def test_one_sentence_that_is_the_caption_is_contrastive() -> None:
    views = batch([1] * 5, [0, 1, 1, 2, 3])
    views = replace(views, extra_text=views.text[:, None])
    assert ReportSentences()(views).item() == pytest.approx(Contrastive()(views).item(), abs=1e-12)


def test_hand_worked() -> None:
    # Scale 1. The first picture has two sentences, at cosine 1 and 0.6; the second one, at cosine 1.
    eye = torch.eye(2, dtype=torch.float64)
    said = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    views = Views(eye, eye, torch.tensor(1.0), extra_text=said, extra_text_mask=mask)
    # Against the other pair's sentence only: the sibling is neither right nor wrong.
    to_text = (log(1 + exp(0 - 1)) + log(1 + exp(0 - 0.6))) / 2
    to_image = (log(1 + exp(0 - 1)) + log(1 + exp(0.8 - 0.6))) / 2
    second = (log(1 + exp(0 - 1) + exp(0.8 - 1)) + log(1 + exp(0 - 1))) / 2
    assert ReportSentences()(views).item() == pytest.approx(
        ((to_text + to_image) / 2 + second) / 2, abs=1e-12
    )


def _open(views: Views) -> torch.Tensor:
    """The definition, one sentence at a time."""
    b, total = len(views.image), torch.tensor(0.0, dtype=torch.float64)
    together = either(views.matches, b)
    there = [
        (i, k) for i in range(b) for k in range(views.extra_text.shape[1]) if views.extra_text_mask[i, k]
    ]
    for i, k in there:
        mine, scale = views.extra_text[i, k], views.scale
        foreign = [views.extra_text[j, q] for j, q in there if not together[i, j]]
        z = torch.stack([views.image[i] @ mine, *(views.image[i] @ t for t in foreign)]) * scale
        images = [views.image[j] for j in range(b) if not together[i, j]]
        w = torch.stack([views.image[i] @ mine, *(x @ mine for x in images)]) * scale
        total = total + (z.logsumexp(0) - z[0] + w.logsumexp(0) - w[0]) / 2 / views.extra_text_mask[i].sum()
    return total / b


def test_equal_to_the_open_definition() -> None:
    views = batch(COUNTS, GROUP)
    torch.testing.assert_close(slopes(ReportSentences(), views), slopes(_open, views), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("logits", [1, 25, 70])
def test_blocks_are_exact(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    views = batch(COUNTS, GROUP)
    said = views.extra_text.clone()
    said[4, 1] = said[0, 2]  # one sentence of two reports
    views = replace(views, extra_text=said)
    wanted = slopes(ReportSentences(), views)
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    torch.testing.assert_close(slopes(ReportSentences(), views), wanted, rtol=1e-12, atol=1e-14)


def test_a_sentence_of_two_reports_is_right_for_both() -> None:
    views = batch([2, 2, 1, 1])
    said = views.extra_text.clone()
    said[1, 0] = said[0, 1]  # "The heart is normal." in both
    twin, loss = replace(views, extra_text=said, matches=grouped(range(4))), ReportSentences()
    _, grads = slopes(lambda v: loss(replace(v, local_rows=slice(0, 1))), twin)
    # The first pair's loss draws its picture to its own sentence, and does not push the other's away.
    assert grads["extra_text"][0, 1].abs().sum() > 0
    assert not grads["extra_text"][1, 0].any()
    _, other = slopes(
        lambda v: loss(replace(v, local_rows=slice(0, 1))), replace(views, matches=grouped(range(4)))
    )
    assert other["extra_text"][1, 0].abs().sum() > 0  # another sentence there is pushed away


@BOTH
def test_patches_get_a_gradient_where_they_are_used(patches: bool) -> None:
    _, grads = slopes(ReportSentences(patches=patches), batch(COUNTS, GROUP))
    assert bool(grads["image_tokens"].any()) is patches


def test_grouping_by_hand() -> None:
    # A word at cosines 1, 0.8 and 0 to three patches: brought to 1, 0.8 and 0, of which 0 < 1/3 is dropped.
    patches = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]], dtype=torch.float64)
    word = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    expected = F.normalize((patches[0, 0] + 0.8 * patches[0, 1]) / 1.8, dim=0)
    torch.testing.assert_close(group_patches(patches, word)[0, 0], expected)


def test_patches_below_an_equal_share_are_dropped() -> None:
    """Cosines 1, 0.4, 0.2 and 0 of four patches: 0.4 is above 1/4 (and below a half, for d = 2), 0.2 is not."""
    cosines = torch.tensor([1.0, 0.4, 0.2, 0.0], dtype=torch.float64)
    patches = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=-1)[None]
    word = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    expected = F.normalize(patches[0, 0] + 0.4 * patches[0, 1], dim=0)
    torch.testing.assert_close(group_patches(patches, word)[0, 0], expected)


def test_grouping_leaves_out_what_is_least_alike() -> None:
    # Cosines 1, 0.8, 0.1 and 0 of four patches: the third lies below 1/4, the last sets the measure.
    cosines = torch.tensor([1.0, 0.8, 0.1, 0.0], dtype=torch.float64)
    patches = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=-1)[None].requires_grad_()
    word = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    (grad,) = torch.autograd.grad(group_patches(patches, word)[0, 0, 1], patches)
    assert grad[0].abs().sum(-1).gt(0).tolist() == [True, True, False, True]


def test_words_are_told_apart_within_a_pair_by_hand() -> None:
    words = torch.eye(2, dtype=torch.float64)[None]
    there = torch.tensor([[True, True]])
    one = torch.tensor(1.0)
    assert contrast_within_pair(words, words, there, one).item() == pytest.approx(log(1 + exp(-1)), abs=1e-12)
    assert contrast_within_pair(words, words, torch.tensor([[True, False]]), one).item() == 0.0
    same = words[:, :1].repeat(1, 2, 1)
    assert (
        contrast_within_pair(same, same, there, one).item() == 0.0
    )  # equal sentences are not held against each other


def test_sentences_of_the_language_that_is_shown() -> None:
    german = "Kein Erguss. Herz normal groß. Lunge frei."
    pair = shown("No effusion. Heart size is normal.", german, "Clear lungs.", languages=["en", "de", "en"])
    assert set(ReportSentences().extra_texts(pair)) == {
        "No effusion.",
        "Heart size is normal.",
        "Clear lungs.",
    }
    assert set(ReportSentences().extra_texts(shown(german, "No effusion.", languages=["de", "en"]))) == {
        "Kein Erguss.",
        "Herz normal groß.",
        "Lunge frei.",
    }
    assert ReportSentences().extra_texts(shown("红色的猫。黑色的狗。")) in (
        ["红色的猫。", "黑色的狗。"],
        ["黑色的狗。", "红色的猫。"],
    )
    assert ReportSentences().extra_texts(shown(".")) == []


def test_another_epoch_draws_other_sentences() -> None:
    report = " ".join(f"Finding {n} is seen." for n in range(9))
    drawn = [
        tuple(ReportSentences(max_sentences=3).extra_texts(shown(report, seed=seed))) for seed in range(30)
    ]
    assert all(len(set(one)) == 3 for one in drawn)
    assert len(set(drawn)) > 25
    assert drawn[4] == tuple(ReportSentences(max_sentences=3).extra_texts(shown(report, seed=4)))
