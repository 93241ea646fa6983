"""Two views: each of its terms is the contrastive loss of other views."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.two_views import TwoViews
from tests.support.text_objectives import assert_gradients, assert_shares_add_up, batch, shown, slopes, unit

GROUP = [0, 1, 2, 2, 3, 4]


def _views(counts: list[int]) -> Views:
    return replace(batch(counts, GROUP), image_2=unit(6, 5, seed=9))


def test_it_is_an_objective_that_asks_only_when_it_must() -> None:
    assert isinstance(TwoViews(), Objective)
    assert TwoViews().needs == {"image_2"}
    assert TwoViews(second_text=True).needs == {"image_2", "extra_text"}
    pair = shown("a dog", "ein Hund", "a hound", languages=["en", "de", "en"])
    assert {t for s in range(30) for t in TwoViews().extra_texts(replace(pair, seed=s))} == {
        "ein Hund",
        "a hound",
    }
    assert TwoViews().extra_texts(shown("a dog")) == []


def test_its_terms_are_contrastive_losses() -> None:
    views = _views([1] * 6)
    second, other = replace(views, image=views.image_2), replace(views, text=views.extra_text[:, 0])
    both = replace(second, text=views.extra_text[:, 0])
    assert TwoViews()(views).item() == pytest.approx(Contrastive()(second).item(), abs=1e-12)
    expected = sum(Contrastive()(one).item() for one in (second, other, both)) / 3
    assert TwoViews(second_text=True)(views).item() == pytest.approx(expected, abs=1e-12)


def test_items_with_one_caption_keep_the_first_term() -> None:
    views = _views([1] * 6)
    nobody = replace(views, extra_text_mask=torch.zeros_like(views.extra_text_mask))
    torch.testing.assert_close(slopes(TwoViews(second_text=True), nobody), slopes(TwoViews(), views))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("second", [True, False])
def test_exact_over_processes_and_in_its_gradients(world: int, second: bool) -> None:
    views, loss = _views([1, 0, 1, 1, 0, 1]), TwoViews(second_text=second)
    assert_shares_add_up(loss, views, world)
    assert_gradients(loss, views, ("image_2", "text", "scale", *(("image", "extra_text") if second else ())))
    _, grads = slopes(loss, views)
    assert grads["image_2"].any()
    assert bool(grads["extra_text"].any()) is second
