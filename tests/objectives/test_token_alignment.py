"""Token alignment: late interaction and sparse grouping by hand, and as open definitions."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses import blockwise
from domainclip.objectives.token_alignment import TokenAlignment
from tests.support.matches import either
from tests.support.text_objectives import assert_gradients, assert_shares_add_up, batch, slopes, unit

FILIP, SPARC = TokenAlignment(mode="filip"), TokenAlignment(mode="sparc")
BOTH = pytest.mark.parametrize("loss", [FILIP, SPARC], ids=["filip", "sparc"])


def _views(lengths: tuple[int, ...] = (3, 1, 2, 0, 3, 2), group: list[int] | None = None) -> Views:
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    words = unit(len(lengths), 3, 5, seed=7) * mask[..., None]
    return replace(batch([0] * len(lengths), group), text_tokens=words, text_mask=mask)


def test_late_interaction_by_hand() -> None:
    # Two patches and one word a pair, scale 1; the words are the first patches of their pictures.
    eye = torch.eye(4, dtype=torch.float64)
    patches, words = torch.stack([eye[:2], eye[2:]]), torch.stack([eye[:1], eye[2:3]])
    views = Views(eye[:2], eye[:2], torch.tensor(1.0), image_tokens=patches, text_tokens=words)
    views = replace(views, text_mask=torch.ones(2, 1, dtype=torch.bool))
    # Of two patches one finds the word, so its own text scores 1/2; the word finds its patch wholly.
    expected = (log(1 + exp(0 - 0.5)) + log(1 + exp(0 - 1))) / 2
    assert FILIP(views).item() == pytest.approx(expected, abs=1e-12)


def _filip(views: Views) -> torch.Tensor:
    """The definition, one combination at a time."""
    b, total = len(views.image), torch.tensor(0.0, dtype=torch.float64)
    together = either(views.matches, b)
    words = [row[there] for row, there in zip(views.text_tokens, views.text_mask, strict=True)]
    for i in range(b):
        if not len(words[i]):
            continue
        others = [j for j in range(b) if not together[i, j]]
        s = [(views.image_tokens[i] @ words[j].T).amax(1).mean() for j in [i, *others] if len(words[j])]
        t = [(words[i] @ views.image_tokens[j].T).amax(1).mean() for j in [i, *others]]
        for scores in (s, t):
            z = torch.stack(scores) * views.scale
            total = total + (z.logsumexp(0) - z[0]) / 2
    return total / b


def test_late_interaction_is_the_open_definition() -> None:
    views = _views(group=[0, 1, 2, 2, 3, 4])
    torch.testing.assert_close(slopes(FILIP, views), slopes(_filip, views), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("logits", [1, 6 * 4 * 3 * 2, 10**6])
def test_blocks_are_exact(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    wanted = slopes(FILIP, _views())
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    torch.testing.assert_close(slopes(FILIP, _views()), wanted, rtol=1e-12, atol=1e-14)


def _sparc(views: Views) -> torch.Tensor:
    """The published pseudocode, pair by pair: min-max, threshold, weights, and two cross-entropies."""
    total = torch.tensor(0.0, dtype=torch.float64)
    for patches, row, there in zip(views.image_tokens, views.text_tokens, views.text_mask, strict=True):
        words = row[there]
        if len(words):
            alike = words @ patches.T
            low, high = alike.min(1, keepdim=True).values, alike.max(1, keepdim=True).values
            alike = (alike - low) / (high - low)
            alike = torch.where(alike < 1 / len(patches), 0.0, alike)
            seen = F.normalize(alike / alike.sum(1, keepdim=True) @ patches, dim=-1)
            logits, own = views.scale * seen @ words.T, torch.arange(len(words))
            total = total + (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    return total / len(views.image)


def test_sparse_grouping_is_the_published_form() -> None:
    torch.testing.assert_close(slopes(SPARC, _views()), slopes(_sparc, _views()), rtol=1e-9, atol=1e-12)


@BOTH
@pytest.mark.parametrize("world", [2, 3])
def test_exact_over_processes_and_in_its_gradients(loss: TokenAlignment, world: int) -> None:
    views = _views(group=[0, 1, 2, 2, 3, 4])
    assert isinstance(loss, Objective)
    assert_shares_add_up(loss, views, world)
    assert_gradients(loss, views, ("image_tokens", "text_tokens", "scale"))
    _, grads = slopes(loss, views)
    assert not grads["text_tokens"][~views.text_mask].any()  # what is no word learns nothing
    assert grads["text_tokens"][views.text_mask].any()
    assert not grads["image"].any()


@BOTH
def test_no_words_at_all_is_no_loss(loss: TokenAlignment) -> None:
    value, grads = slopes(loss, _views((0, 0, 0, 0)))
    assert value.item() == 0.0
    assert all(not grad.any() for grad in grads.values())


def test_the_two_modes_differ_in_what_they_compare() -> None:
    views = _views()
    moved = replace(views, image_tokens=torch.cat([views.image_tokens[:5], unit(1, 4, 5, seed=30)]))
    first = [replace(one, local_rows=slice(0, 1)) for one in (views, moved)]
    assert SPARC(first[0]).item() == SPARC(first[1]).item()  # another picture is none of its business
    assert FILIP(first[0]).item() != pytest.approx(FILIP(first[1]).item(), abs=1e-6)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("objectives", "token_alignment", {"mode": "max"}, "objectives.token_alignment")
    assert (
        str(caught.value) == "objectives.token_alignment.mode: input should be 'filip' or 'sparc', got 'max'"
    )
