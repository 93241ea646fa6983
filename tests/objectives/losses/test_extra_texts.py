"""Rows that pick their own right column: by hand, in blocks, and with columns that are right as well."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Objective
from domainclip.objectives.caption_rewrites import CaptionRewrites
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.extra_texts import cross_entropy_among, matching_pair_mask, pair_losses
from domainclip.objectives.negative_captions import NegativeCaptions
from domainclip.objectives.paraphrases import Paraphrases
from domainclip.objectives.two_views import TwoViews
from tests.support.matches import grouped, related
from tests.support.text_objectives import assert_gradients, assert_shares_add_up, batch, slopes, unit

ONE = torch.tensor(1.0, dtype=torch.float64)


def _none(at: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(at), 2, dtype=torch.bool)


def test_by_hand() -> None:
    # A row at cosine 0.6 to its right column, 0.8 and 0 to two others, scale 1.
    row, right = (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.6, 0.8]], dtype=torch.float64),
    )
    others = torch.tensor([[0.8, -0.6], [0.0, 1.0]], dtype=torch.float64)
    expected = log(exp(0.6) + exp(0.8) + exp(0.0)) - 0.6
    assert cross_entropy_among(row, right, others, _none, ONE).item() == pytest.approx(expected, abs=1e-12)


def test_what_is_right_as_well_is_no_negative() -> None:
    row, right = (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.6, 0.8]], dtype=torch.float64),
    )
    only = log(1 + exp(0.0 - 0.6))
    last = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    for equal in (right, row):  # the right one once more; the row itself, as a text among texts
        found = cross_entropy_among(row, right, torch.cat([equal, last]), _none, ONE).item()
        assert found == pytest.approx(only, abs=1e-12)
    # As far as rounding to bf16 may move it, 1 - 8e-6, it is the same text; a little farther, another.
    nearly = F.normalize(right + torch.tensor([[0.005, 0.0]], dtype=torch.float64), dim=-1)
    assert cross_entropy_among(row, right, torch.cat([nearly, last]), _none, ONE).item() == pytest.approx(
        only, abs=1e-12
    )
    other = F.normalize(right + torch.tensor([[0.05, 0.0]], dtype=torch.float64), dim=-1)  # 1 - 8e-4
    assert cross_entropy_among(row, right, torch.cat([other, last]), _none, ONE).item() > only + 0.1


def test_nothing_to_choose_from_is_no_loss() -> None:
    row = unit(3, 4).requires_grad_()
    assert cross_entropy_among(row[:0], row[:0], row[:2], _none, ONE).shape == (0,)
    value = cross_entropy_among(row, unit(3, 4, seed=1), unit(2, 4, seed=2), lambda at: ~_none(at), ONE).sum()
    value.backward()
    assert value.item() == 0.0
    assert not row.grad.any()


@pytest.mark.parametrize("logits", [1, 9, 20, 10**6])
def test_blocks_are_exact(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    views = batch([1, 0, 1, 1, 1, 0, 1], group=[0, 1, 2, 2, 3, 4, 5])

    def loss(given):
        return pair_losses(given, given.image, given.extra_text[:, 0], given.extra_text_mask[:, 0]).mean()

    wanted = slopes(loss, views)
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    found = slopes(loss, views)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_facing_all_is_contrastive() -> None:
    views = batch([1] * 6, group=[0, 1, 1, 2, 3, 4])
    everyone = torch.ones(6, dtype=torch.bool)

    def loss(given):
        return pair_losses(given, given.image, given.text, everyone).mean()

    torch.testing.assert_close(slopes(loss, views), slopes(Contrastive(), views), rtol=1e-12, atol=1e-14)


def test_only_what_is_there_is_chosen_from() -> None:
    views = batch([1, 0, 1, 1], group=[0, 1, 2, 3])
    there = views.extra_text_mask[:, 0]
    kept = torch.tensor([0, 2, 3])
    small = replace(views, image=views.image[kept], matches=grouped([0, 2, 3]))
    whole = pair_losses(views, views.image, views.extra_text[:, 0], there)
    part = pair_losses(small, small.image, views.extra_text[kept, 0], torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(whole[kept], part)
    assert whole[1].item() == 0.0


@pytest.mark.parametrize("world", [2, 3, 6])
def test_shares_of_processes_add_up(world: int) -> None:
    views = batch([1, 0, 1, 1, 0, 1], group=[0, 1, 2, 2, 3, 4])

    def loss(given):
        return pair_losses(given, given.text, given.extra_text[:, 0], given.extra_text_mask[:, 0]).mean()

    assert_shares_add_up(loss, views, world)
    assert_gradients(loss, views, ("text", "extra_text", "scale"))


def test_together_without_groups_is_the_pair_alone() -> None:
    views = batch([1, 1, 1])
    out = matching_pair_mask(views, torch.tensor([2, 0]), torch.tensor([0, 0, 2]))
    assert out(torch.tensor([0, 1])).tolist() == [[False, False, True], [True, True, False]]


OF_EXTRA_TEXTS = [
    Paraphrases(share=1),
    TwoViews(second_text=True),
    CaptionRewrites(),
    NegativeCaptions(shared=True, rules=["swap"]),
]


@pytest.mark.parametrize("loss", OF_EXTRA_TEXTS, ids=lambda loss: type(loss).__name__)
def test_an_extra_text_that_an_image_may_show_is_not_its_negative(loss: Objective) -> None:
    """Of three pairs, image 0 may show caption 11, which is the extra text of pair 1."""
    views = replace(batch([1, 1, 1]), image_2=unit(3, 5, seed=9))
    captions = torch.tensor([[20], [11], [22]])
    pushed = {}
    for pool in ([10], [10, 11]):
        given = replace(views, matches=related(range(3), [pool, [15], [16]]), extra_caption=captions)
        _, grads = slopes(lambda v: loss(replace(v, local_rows=slice(0, 1))), given)
        pushed[len(pool)] = grads["extra_text"][:, 0].abs().sum(dim=1)
    assert pushed[2][1] == 0
    assert pushed[2][2] > 0
    assert pushed[1][1] > 0  # negative control: a caption of another pair alone is pushed away


def test_each_direction_leaves_out_what_is_right_for_its_rows() -> None:
    """Text 1 is right for image 0, and text 0 is not for image 1: they are a negative in one direction alone."""
    views, everyone = batch([1] * 3), torch.ones(3, dtype=torch.bool)
    matches = related(range(3), [[1, 2], [2], [3]])
    plain = replace(views, matches=None)
    z = views.scale * views.image @ views.text.T
    to_text = [[0, 2], [0, 1, 2], [0, 1, 2]]  # the texts of each image
    to_image = [[0, 1, 2], [1, 2], [0, 1, 2]]  # the images of each text
    expected = [
        (z[i, to_text[i]].logsumexp(0) + z[to_image[i], i].logsumexp(0)) / 2 - z[i, i] for i in range(3)
    ]
    found = pair_losses(plain, views.image, views.text, everyone, matches=matches)
    torch.testing.assert_close(found, torch.stack(expected))
