"""The learning rate as a pure function of the step, and the optimizer's groups."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, pi
from typing import Any

import torch
from torch import Tensor

from domainclip.config.training import TrainConfig
from domainclip.errors import library
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.projection_decay import ProjectionDecayAdamW


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the factor on the peak rate: linear warm-up over a share of the steps, then a cosine to 0."""
    warmup_steps = max(1, round(warmup * total))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(1, total - warmup_steps)))


def make_optimizer(
    model: DualEncoder,
    factors: dict[str, float],
    train: TrainConfig,
    rate: float,
    start: Mapping[str, Tensor] | None = None,
) -> torch.optim.Optimizer:
    """Return AdamW without weight decay on norms, biases and the scale; each group stores its peak rate.

    `factors` on the peak rate, by weight name; 0 leaves a weight out. `start` has the weights before the
    first step of the run, for `train.projection_decay`; None: they are the present ones.

    Raises: RecipeError when a library that the recipe needs is not installed.
    """
    # Sharded tensors and whole ones cannot be updated in one call, so the type is part of the group.
    groups: dict[tuple[float, float, type], list[torch.nn.Parameter]] = {}
    for name, weight in model.weights().items():
        if factors[name] > 0:
            projected = train.projection_decay is not None
            decay = train.weight_decay if model.uses_weight_decay(name) and not projected else 0.0
            groups.setdefault((factors[name] * rate, decay, type(weight.data)), []).append(weight)
    options = [
        {"params": p, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay, _), p in groups.items()
    ]
    if train.optimizer == "adamw8bit":
        eight_bit: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(options, betas=train.betas)
        return eight_bit
    if train.projection_decay is not None:
        begun = {
            weight: (weight if start is None else start[name]).detach().to(weight.device, copy=True)
            for name, weight in model.weights().items()
            if factors[name] > 0
        }
        return ProjectionDecayAdamW(options, begun, train.projection_decay, train.betas)
    # One pass over memory instead of a dozen.
    return torch.optim.AdamW(options, betas=train.betas, fused=True)


def require_optimizer(train: TrainConfig) -> None:
    """Check for the optimizer's library before anything is loaded.

    Raises: RecipeError when it is not installed.
    """
    if train.optimizer == "adamw8bit":
        _bitsandbytes()


def moment(optimizer: torch.optim.Optimizer, key: str, value: Tensor) -> Any:
    """Convert a tensor of a checkpoint into the form in which the optimizer keeps it."""
    is_count = key == "step" and not isinstance(optimizer, torch.optim.AdamW)
    return int(value) if is_count else value


def _bitsandbytes() -> Any:
    return library(
        "bitsandbytes",
        "train.optimizer: adamw8bit needs bitsandbytes: pip install 'domainclip[eight_bit]', or use adamw",
    )


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of every group to this factor times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
