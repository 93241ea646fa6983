"""The contrastive objective against closed forms, a hand-worked case, and open definitions."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.contracts import Views
from domainclip.objectives.contrastive import Contrastive


def _views(
    image: torch.Tensor, text: torch.Tensor, scale: float = 1.0, group: list[int] | None = None
) -> Views:
    numbers = None if group is None else torch.tensor(group)
    return Views(image, text, torch.tensor(scale, dtype=image.dtype), group=numbers)


@pytest.mark.parametrize(("n", "scale", "value"), [(4, 1.0, 0.7436683806), (8, 14.285714, 4.374116e-6)])
def test_identity_similarity(n: int, scale: float, value: float) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    loss = Contrastive()(_views(eye, eye, scale)).item()
    assert loss == pytest.approx(log(1 + (n - 1) * exp(-scale)), abs=1e-12)
    assert loss == pytest.approx(value, rel=1e-6)


def test_equal_similarity_is_chance() -> None:
    same = F.normalize(torch.ones(8, 4, dtype=torch.float64), dim=-1)
    assert Contrastive()(_views(same, same, 50.0)).item() == pytest.approx(log(8), abs=1e-12)


def test_hand_worked_two_by_two() -> None:
    # s = [[1, 0.6], [0, 0.8]], scale 1: rows and columns by hand.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    rows = (log(1 + exp(0.6 - 1)) + log(1 + exp(0 - 0.8))) / 2
    columns = (log(1 + exp(0 - 1)) + log(1 + exp(0.6 - 0.8))) / 2
    assert Contrastive()(_views(image, text)).item() == pytest.approx((rows + columns) / 2, abs=1e-12)


def test_a_group_leaves_each_others_denominators() -> None:
    # Three pairs, the first two alike and grouped: each is left with one negative, the third with two.
    eye = torch.eye(3, dtype=torch.float64)
    expected = (2 * log(1 + exp(-1)) + log(1 + 2 * exp(-1))) / 3
    assert Contrastive()(_views(eye, eye, group=[7, 7, 9])).item() == pytest.approx(expected, abs=1e-12)
    assert Contrastive()(_views(eye, eye, group=[7, 8, 9])).item() != pytest.approx(expected, abs=1e-6)


def test_all_of_one_group_has_nothing_to_learn() -> None:
    image = F.normalize(torch.randn(4, 3, dtype=torch.float64, generator=torch.manual_seed(0)), dim=-1)
    image.requires_grad_()
    loss = Contrastive()(_views(image, image.detach(), group=[1, 1, 1, 1]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(image.grad, torch.zeros_like(image))  # finite, not NaN from minus infinity


def test_gradients() -> None:
    torch.manual_seed(0)
    image, text = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    group = torch.tensor([0, 1, 1, 2, 3])

    def loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return Contrastive()(Views(F.normalize(image, dim=-1), F.normalize(text, dim=-1), scale, group=group))

    assert torch.autograd.gradcheck(loss, (image, text, scale))
