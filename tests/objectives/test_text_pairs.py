"""Text pairs: against sentence-transformers' symmetric loss and by hand; translations as pairs."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.objectives.base import Views
from domainclip.objectives.text_pairs import TextPairs
from tests.support.matches import grouped
from tests.support.text_objectives import (
    batch,
    shown,
    slopes,
)

COUNTS, GROUP = [1, 0, 1, 1, 1, 1], [0, 1, 2, 2, 3, 4]


def test_hand_worked_with_a_temperature_of_its_own() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    views = Views(
        eye,
        eye,
        torch.tensor(3.0),
        extra_text=eye[:, None],
        extra_text_mask=torch.ones(2, 1, dtype=torch.bool),
    )
    assert TextPairs()(views).item() == pytest.approx(log(1 + exp(-3)), abs=1e-12)
    assert TextPairs(temperature=0.5)(views).item() == pytest.approx(log(1 + exp(-2)), abs=1e-7)


def test_equal_to_sentence_transformers() -> None:
    views = batch([1] * 7)
    reference = MultipleNegativesRankingLoss(
        torch.nn.Identity(),
        scale=4.0,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )

    def theirs(given: Views) -> torch.Tensor:
        return reference.compute_loss_from_embeddings([given.text, given.extra_text[:, 0]], None)

    value, grads = slopes(TextPairs(), views)
    assert value.item() == pytest.approx(theirs(views).item(), abs=1e-12)
    leaf = views.text.clone().requires_grad_()
    (expected,) = torch.autograd.grad(theirs(replace(views, text=leaf)), leaf)
    # Theirs takes cosines: of its gradient only what lies along the sphere is a change.
    along = [g - (g * views.text).sum(-1, keepdim=True) * views.text for g in (grads["text"], expected)]
    torch.testing.assert_close(along[0], along[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_images_and_a_fixed_temperature_get_no_gradient(temperature: float | None) -> None:
    _, grads = slopes(TextPairs(temperature=temperature), batch(COUNTS, GROUP))
    assert not grads["image"].any()
    assert bool(grads["scale"]) is (temperature is None)


def test_a_caption_that_is_anothers_partner_is_no_negative() -> None:
    views = replace(batch([1, 1, 1]), matches=grouped(range(3)))
    said = views.extra_text.clone()
    said[1, 0] = views.text[0]  # the second pair's translation reads like the first pair's caption
    _, grads = slopes(
        lambda v: TextPairs()(replace(v, local_rows=slice(0, 1))), replace(views, extra_text=said)
    )
    assert not grads["extra_text"][1].any()
    assert grads["extra_text"][2].any()


def test_which_text() -> None:
    pair = shown("a dog", "ein Hund", "a hound", "un chien", languages=["en", "de", "en", "fr"])
    asked = {
        which: {tuple(TextPairs(captions=which).extra_texts(replace(pair, seed=s))) for s in range(40)}
        for which in ("any", "same_language", "other_language")
    }
    assert asked["other_language"] == {("ein Hund",), ("un chien",)}
    assert asked["same_language"] == {("a hound",)}
    assert asked["any"] == {("ein Hund",), ("a hound",), ("un chien",)}
    assert TextPairs(column="title").extra_texts(replace(pair, meta={"title": "Rex"})) == ["Rex"]
    assert TextPairs(column="title").extra_texts(pair) == []
    assert TextPairs().extra_texts(shown("a dog")) == []


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("objectives", "text_pairs", {"captions": "all"}, "objectives.text_pairs")
    assert (
        str(caught.value)
        == "objectives.text_pairs.captions: input should be 'any', 'same_language' or 'other_language', got 'all'"
    )
