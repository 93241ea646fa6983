"""Probabilistic embeddings: the Wasserstein distance by hand, and contrastive at the start."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.probabilistic import Probabilistic
from tests.objectives.filled_views import check_gradients, filled_for


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    # σ of images: 1 in both dimensions; of texts: 2 along their own axis (log variance 2 ln 2), else 1.
    own = {"directions": torch.stack([0 * eye, 2 * log(2) * eye]), "offsets": 0 * eye}
    views = Views(eye, eye, torch.tensor(2.0, dtype=torch.float64), own_weights=own)
    # W² = 0 + 1 for a pair and 2 + 1 for others: z = 2 (1 − ½) = 1 and 2 (1 − 3/2) = −1.
    assert Probabilistic()(views).item() == pytest.approx(log(1 + exp(-2)), abs=1e-12)
    # Texts of the other deviation are further away from all images alike: a text that differs more loses.
    first = torch.diag(torch.tensor([2 * log(2), 0.0], dtype=torch.float64))
    one = {**own, "directions": torch.stack([0 * eye, first])}
    image = (log(1 + exp(-2 * (0.5 - 0))) + log(1 + exp(-2 * (1 - (-0.5))))) / 2
    text = (log(1 + exp(-2 * (0.5 - (-0.5)))) + log(1 + exp(-2 * (1 - 0)))) / 2
    assert Probabilistic()(replace(views, own_weights=one)).item() == pytest.approx(
        (image + text) / 2, abs=1e-12
    )


def test_it_begins_near_contrastive_and_leaves_it() -> None:
    views = filled_for(Probabilistic())
    start = {name: w.double() for name, w in Probabilistic().initial_weights(Sizes(6), 0).items()}
    assert start["offsets"].exp().sqrt().flatten().tolist() == pytest.approx([0.05] * 12)
    for weight in start.values():
        weight.requires_grad_()
    loss = Probabilistic()(replace(views, own_weights=start))
    assert loss.item() == pytest.approx(Contrastive()(views).item(), abs=1e-3)
    gradients = torch.autograd.grad(loss, list(start.values()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    # Between equal deviations, as with A = 0, no weight would ever learn.
    equal = {
        "directions": torch.zeros_like(start["directions"]).requires_grad_(),
        "offsets": start["offsets"],
    }
    gradients = torch.autograd.grad(Probabilistic()(replace(views, own_weights=equal)), list(equal.values()))
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


def test_parity_with_distances_of_torch() -> None:
    views = replace(filled_for(Probabilistic()), matches=None)
    own = views.own_weights
    sides = [
        torch.cat([side, ((side @ own["directions"][at] + own["offsets"][at]) / 2).exp()], dim=-1)
        for at, side in enumerate((views.image, views.text))
    ]
    logits = views.scale * (1 - torch.cdist(sides[0], sides[1]).square() / 2)
    index = torch.arange(8)
    expected = (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index)) / 2
    assert Probabilistic()(views).item() == pytest.approx(expected.item(), abs=1e-10)


def test_gradients_in_double_precision() -> None:
    check_gradients(Probabilistic(), filled_for(Probabilistic(), b=5, d=3))
