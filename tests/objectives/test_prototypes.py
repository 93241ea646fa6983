"""Prototypes: swapped assignments by hand, and balanced shares."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.prototypes import Prototypes
from tests.objectives.filled_views import check_gradients, check_processes, filled_for


def _views(text: torch.Tensor | None = None) -> Views:
    eye = torch.eye(2, dtype=torch.float64)
    own = {"directions": 3 * eye.clone().requires_grad_()}  # lengths do not matter
    return Views(eye, eye if text is None else text, torch.tensor(1.0), own_weights=own)


def test_a_value_worked_by_hand() -> None:
    # Scores are the identity: balanced at once, q = (a, 1 − a) with a = σ(1/0.5); p = (σ(1/2), …) at τ = 2.
    a, p = 1 / (1 + exp(-2)), 1 / (1 + exp(-0.5))
    expected = -(a * log(p) + (1 - a) * log(1 - p))
    objective = Prototypes(count=2, temperature=2.0, assignment_temperature=0.5)
    assert objective(_views()).item() == pytest.approx(expected, abs=1e-12)


def test_texts_of_the_other_image_cost_more() -> None:
    swapped = _views(torch.eye(2, dtype=torch.float64).flip(0))
    assert Prototypes(count=2)(swapped).item() > Prototypes(count=2)(_views()).item() + 1


def test_views_are_compared_where_asked() -> None:
    objective = Prototypes(count=4, between="views")
    assert objective.needs == {"image_2"}
    views = filled_for(objective)
    expected = Prototypes(count=4)(replace(views, text=views.image_2))
    assert objective(views).item() == pytest.approx(expected.item(), abs=1e-12)
    assert Prototypes(count=4).needs == frozenset()


@pytest.mark.parametrize("between", ["modalities", "views"])
def test_gradients_where_the_shares_are_fixed(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares have no gradient by design: finite differences see it only when they do not move."""
    shares = torch.rand(8, 4, dtype=torch.float64).softmax(dim=1)
    monkeypatch.setattr(sinkhorn, "balanced_assignment", lambda *_: shares)
    objective = Prototypes(count=4, between=between)  # type: ignore[arg-type]
    check_gradients(objective, filled_for(objective))


def test_every_prototype_gets_an_equal_share() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    shares = sinkhorn.balanced_assignment(scores, 0.5, iterations=200)
    assert torch.allclose(shares.sum(dim=1), torch.ones(40, dtype=torch.float64))
    assert torch.allclose(shares.sum(dim=0), torch.full((5,), 8.0, dtype=torch.float64))
    # Entropic transport: log shares differ from scores / ε by a row and a column term only.
    rest = shares.log() - scores / 0.5
    rest = rest - rest.mean(dim=0) - rest.mean(dim=1, keepdim=True) + rest.mean()
    assert rest.abs().max() < 1e-10
    # Negative control: a softmax is not balanced.
    assert (scores / 0.5).softmax(dim=1).sum(dim=0).std() > 1
    assert sinkhorn.balanced_assignment(1000 * scores, 1e-3).isfinite().all()


def test_the_start_follows_from_the_seed() -> None:
    one, again, other = (Prototypes().initial_weights(Sizes(16), seed)["directions"] for seed in (0, 0, 1))
    assert one.shape == (64, 16)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_sentences_of_a_report_by_hand() -> None:
    """One image and its two sentences on the axes; the shares of a single row, or of two, are as they are."""
    eye = torch.eye(2, dtype=torch.float64)
    own = {"directions": eye.clone().requires_grad_()}
    mask = torch.tensor([[True, True]])
    views = Views(
        eye[:1], eye[:1], torch.tensor(1.0), own_weights=own, extra_text=eye[None], extra_text_mask=mask
    )
    objective = Prototypes(count=2, between="sentences", temperature=2.0, assignment_temperature=0.5)
    assert objective.needs == {"extra_text"}
    a, p = 1 / (1 + exp(-2)), 1 / (1 + exp(-0.5))  # a share of the sentences; of an image alone both are ½
    to_image = -(a * log(p) + (1 - a) * log(1 - p) + (1 - a) * log(p) + a * log(1 - p)) / 2
    to_sentence = -(log(p) + log(1 - p)) / 2
    assert objective(views).item() == pytest.approx((to_image + to_sentence) / 2, abs=1e-9)
    silent = replace(views, extra_text_mask=torch.tensor([[False, False]]))
    assert objective(silent).item() == 0
    check_processes(objective, filled_for(objective), processes=2)
