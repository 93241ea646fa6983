"""Selective projection decay: weights return towards their start only where a step turned back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ProjectionDecayAdamW(torch.optim.AdamW):
    """AdamW, after whose step each tensor θ that turned back is drawn towards its start θ₀.

    With the gradient g at θ, and θ' the weights after the step: where g · (θ − θ₀) > 0, the loss asks the
    tensor to return; then θ' ← θ' − λ r (θ' − θ₀) with r = max(0, 1 − ‖θ − θ₀‖ / ‖θ' − θ₀‖). At λ = 1 it is
    projected onto the ball around θ₀ on whose surface it was. Tensors that go on as before move freely, where
    a constant weight decay would hold all of them alike. [arXiv:2411.01713]
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        start: Mapping[torch.nn.Parameter, Tensor],
        factor: float,
        betas: tuple[float, float],
    ) -> None:
        """`start`: θ₀ by weight; `factor`: λ. The groups have no weight decay."""
        super().__init__(groups, betas=betas, fused=True)
        self.start = dict(start)
        self.factor = factor

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step of AdamW, then draw back; without any wait for the device."""
        before = []
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            if weight.grad is not None:
                moved = weight - self.start[weight]
                before.append((weight, moved.norm(), (weight.grad * moved).sum()))
        loss = super().step(closure)
        for weight, distance, slope in before:
            moved = weight - self.start[weight]
            ratio = (1 - distance / moved.norm().clamp_min(1e-30)).clamp_min(0)
            weight.sub_(torch.where(slope > 0, self.factor * ratio, torch.zeros_like(ratio)) * moved)
        return loss
