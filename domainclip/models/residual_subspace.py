"""Directions of a layer's input that its principal singular vectors do not span."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_directions(weight: Tensor, energy: float) -> Tensor:
    """(p, in) the fewest right singular vectors of (out, in) that hold this share of its squared norm."""
    _, values, directions = torch.linalg.svd(weight.float(), full_matrices=False)
    shares = values.square().cumsum(0) / values.square().sum()
    principal: Tensor = directions[: int((shares < energy).sum()) + 1]
    return principal


def residual_directions(weight: Tensor, count: int, energy: float) -> Tensor:
    """(count, in) random orthonormal rows outside the principal directions, or all that there are."""
    principal = principal_directions(weight, energy)
    count = min(count, weight.shape[1] - len(principal))
    drawn = torch.randn(count, weight.shape[1], device=weight.device)
    for _ in range(2):  # the second time removes what rounding has left
        drawn = drawn - drawn @ principal.T @ principal
    return torch.linalg.qr(drawn.T).Q.T if count else drawn
