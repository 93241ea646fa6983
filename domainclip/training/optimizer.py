"""The learning rate as a pure function of the step, and the optimizer's groups."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from torch import Tensor

from domainclip.config.training import TrainConfig
from domainclip.errors import library
from domainclip.models.dual_encoder import DualEncoder


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Warm-up in a straight line over a share of the steps, then half a cosine down to zero."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + cos(pi * (step - rising) / max(1, total - rising)))


def make_optimizer(
    model: DualEncoder, factors: dict[str, float], train: TrainConfig, rate: float
) -> torch.optim.Optimizer:
    """AdamW; norms, biases and scale stay outside weight decay; each group knows its peak rate.

    Raises: RecipeError when a library that the recipe asks for is not installed.
    """
    # Parts of tensors and whole ones cannot be updated in one call.
    groups: dict[tuple[float, float, type], list[torch.nn.Parameter]] = {}
    for name, weight in model.weights().items():
        if factors[name] > 0:
            decay = train.weight_decay if model.uses_weight_decay(name) else 0.0
            groups.setdefault((factors[name] * rate, decay, type(weight.data)), []).append(weight)
    options = [
        {"params": p, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay, _), p in groups.items()
    ]
    if train.optimizer == "adamw8bit":
        eight_bit: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(options, betas=train.betas)
        return eight_bit
    # One pass over memory instead of a dozen.
    return torch.optim.AdamW(options, betas=train.betas, fused=True)


def require_optimizer(train: TrainConfig) -> None:
    """Asks for the optimizer's library before anything is loaded.

    Raises: RecipeError when it is not installed.
    """
    if train.optimizer == "adamw8bit":
        _bitsandbytes()


def moment(optimizer: torch.optim.Optimizer, key: str, value: Tensor) -> Any:
    """What a checkpoint holds of an optimizer's state, as that optimizer keeps it."""
    counts = key == "step" and not isinstance(optimizer, torch.optim.AdamW)
    return int(value) if counts else value


def _bitsandbytes() -> Any:
    return library(
        "bitsandbytes",
        "train.optimizer: adamw8bit needs bitsandbytes: pip install 'domainclip[eight_bit]', or use adamw",
    )


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group at this share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
