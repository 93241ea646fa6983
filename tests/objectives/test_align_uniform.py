"""Alignment and uniformity by hand, and against the definitions of their authors."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.objectives.align_uniform import AlignUniform
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from tests.objectives.filled_views import Loss, check_equal, check_gradients, check_processes, filled
from tests.support.matches import either

NONE = {"align": 0.0, "within": 0.0, "across": 0.0}


def _only(**one: float) -> AlignUniform:
    return AlignUniform(**{**NONE, **one})  # type: ignore[arg-type]


def test_by_hand() -> None:
    # Two pairs. Images at a right angle (distance² 2), texts opposite (4); pairs: 0 and 2; crossed: 4 and 2.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    views = Views(image, text, torch.tensor(1.0, dtype=torch.float64))
    assert _only(align=1)(views).item() == pytest.approx(1.0, abs=1e-12)
    assert _only(within=1)(views).item() == pytest.approx((-4 - 8) / 2, abs=1e-12)
    assert _only(across=1)(views).item() == pytest.approx(log((exp(-8) + exp(-4)) / 2), abs=1e-12)
    assert _only(across=1, t=1)(views).item() == pytest.approx(log((exp(-4) + exp(-2)) / 2), abs=1e-12)


def _align_loss(x: Tensor, y: Tensor, alpha: float = 2) -> Tensor:
    """As in the paper's own figure, arXiv:2005.10242."""
    return (x - y).norm(p=2, dim=1).pow(alpha).mean()


def _uniform_loss(x: Tensor, t: float = 2) -> Tensor:
    return torch.pdist(x, p=2).pow(2).mul(-t).exp().mean().log()


@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_equal_to_the_definition(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    views = filled(b=7, grouped=False)

    def theirs(seen: Views) -> Tensor:
        within = (_uniform_loss(seen.image) + _uniform_loss(seen.text)) / 2
        apart = (torch.cdist(seen.image, seen.text).square() * -2).exp()
        across = apart[~torch.eye(7, dtype=torch.bool)].mean().log()
        return 2 * _align_loss(seen.image, seen.text) + 0.5 * within + 3 * across

    # The definition has rows of unit length, and so must what both are differentiated by.
    def turned(seen: Views) -> Views:
        return replace(seen, image=F.normalize(seen.image, dim=-1), text=F.normalize(seen.text, dim=-1))

    ours = AlignUniform(align=2, within=0.5, across=3)
    check_equal(lambda seen: ours(turned(seen)), lambda seen: theirs(turned(seen)), views)


def test_a_group_is_not_spread() -> None:
    views = filled(b=5)
    spread = (views.image[:, None] - views.image).square().sum(-1) * -2
    other = ~either(views.matches, 5)
    images = spread[other].exp().mean().log()
    texts = ((views.text[:, None] - views.text).square().sum(-1) * -2)[other].exp().mean().log()
    assert _only(within=1)(views).item() == pytest.approx(((images + texts) / 2).item(), abs=1e-12)


def test_it_closes_the_gap_that_contrast_leaves() -> None:
    # Images and texts begin on two opposite caps, in the same order: contrast is content with that.
    assert _gap(Contrastive()) > 1
    assert _gap(lambda views: Contrastive()(views) + AlignUniform()(views)) < 0.2


def _gap(loss: Loss) -> float:
    """The distance of the two centres after some steps of free embeddings."""
    draw = torch.Generator().manual_seed(0)
    here = torch.randn(16, 7, generator=draw, dtype=torch.float64)
    pole = torch.full((16, 1), 3.0, dtype=torch.float64)
    sides = [torch.cat([here, sign * pole], 1).requires_grad_() for sign in (1, -1)]
    steps = torch.optim.Adam(sides, lr=0.05)
    for _ in range(100):
        image, text = (F.normalize(side, dim=1) for side in sides)
        found = loss(Views(image, text, torch.tensor(20.0, dtype=torch.float64)))
        steps.zero_grad()
        found.backward()
        steps.step()
    image, text = (F.normalize(side, dim=1) for side in sides)
    return float((image.mean(0) - text.mean(0)).detach().norm())


def test_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    objective = AlignUniform(align=0.7, within=0.4, across=1.3, t=1.5)
    check_gradients(objective, filled(b=5, d=3))
    check_processes(objective, filled(b=12))
    check_equal(objective, lambda seen: objective(replace(seen, local_rows=slice(0, 12))), filled(b=12))
