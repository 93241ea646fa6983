"""The anchor against hand-worked values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from domainclip.contracts import Views
from domainclip.objectives.anchor import Anchor


def _views(now: torch.Tensor, base: torch.Tensor) -> Views:
    nothing = torch.zeros(1, now.shape[1], dtype=now.dtype)
    return Views(nothing, nothing, torch.tensor(1.0), prose=now, anchor_prose=base)


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
