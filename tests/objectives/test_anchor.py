"""The anchor against hand-worked values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.anchor import Anchor
from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled


def _views(now: torch.Tensor, base: torch.Tensor) -> Views:
    nothing = torch.zeros(1, now.shape[1], dtype=now.dtype)
    return Views(nothing, nothing, torch.tensor(1.0), anchor_text=now, base_anchor_text=base)


def test_hand_worked() -> None:
    base = torch.eye(2, dtype=torch.float64)
    # One sentence turned to its opposite (distance² 4), one to a right angle (distance² 2).
    now = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert Anchor()(_views(now, base)).item() == pytest.approx(3.0, abs=1e-12)
    assert Anchor()(_views(base, base)).item() == 0.0


def test_gradients() -> None:
    torch.manual_seed(0)
    now = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    base = F.normalize(torch.randn(4, 3, dtype=torch.float64), dim=-1)
    assert torch.autograd.gradcheck(lambda rows: Anchor()(_views(F.normalize(rows, dim=-1), base)), (now,))


ALL = frozenset({"anchor_text", "base_anchor_text", "base_image"})


def test_similarity_by_hand() -> None:
    # From a right angle to the same place: two entries of the matrix go from 0 to 1, shared by two sentences.
    base = torch.eye(2, dtype=torch.float64)
    now = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert Anchor(space="similarity")(_views(now, base)).item() == pytest.approx(1.0, abs=1e-12)


def test_similarity_lets_all_turn_together_and_embedding_does_not() -> None:
    base = torch.eye(2, dtype=torch.float64)
    turned = base.flip(1)
    assert Anchor(space="similarity")(_views(turned, base)).item() == 0.0
    assert Anchor()(_views(turned, base)).item() == 2.0


def test_logit_by_hand() -> None:
    # τ = 1. The base gives the one image (e/(e+1), 1/(e+1)) of its two sentences; now it cannot tell them apart.
    e, eye = math.e, torch.eye(2, dtype=torch.float64)
    now = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    views = Views(
        eye[:1], eye[:1], torch.tensor(9.0), anchor_text=now, base_anchor_text=eye, base_image=eye[:1]
    )
    first, second = e / (e + 1), 1 / (e + 1)
    expected = first * math.log(2 * first) + second * math.log(2 * second)
    assert Anchor(space="logit", temperature=1.0)(views).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("logits", [1, 11, 2**20])
def test_logit_is_the_dense_divergence(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)

    def dense(seen: Views) -> torch.Tensor:
        now, then = 4 * seen.image @ seen.anchor_text.T, 4 * seen.base_image @ seen.base_anchor_text.T
        return F.kl_div(now.log_softmax(1), then.log_softmax(1), log_target=True, reduction="batchmean")

    check_equal(Anchor(space="logit", temperature=0.25), dense, filled(ALL, b=7))


@pytest.mark.parametrize("space", ["embedding", "similarity", "logit"])
def test_exact_and_zero_where_nothing_has_moved(space: str) -> None:
    objective = Anchor(space=space, temperature=0.2)  # type: ignore[arg-type]
    views = filled(ALL, b=8)
    check_gradients(objective, filled(ALL, b=4, d=3))
    check_processes(objective, views)
    assert objective(views).item() > 1e-3
    still = replace(views, anchor_text=views.base_anchor_text, image=views.base_image)
    assert objective(still).item() == pytest.approx(0.0, abs=1e-12)


def test_needs() -> None:
    assert Anchor().needs == Anchor(space="similarity").needs == {"anchor_text", "base_anchor_text"}
    assert Anchor(space="logit").needs == ALL
