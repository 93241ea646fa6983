"""The learning rate as a pure function of the step, and the optimizer's groups."""

from __future__ import annotations

from math import cos, pi

import torch

from domainclip.recipe import Train
from domainclip.towers import Towers


def factor(step: int, total: int, warmup: float) -> float:
    """Warm-up in a straight line over a share of the steps, then half a cosine down to zero."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + cos(pi * (step - rising) / max(1, total - rising)))


def make_optimizer(towers: Towers, factors: dict[str, float], train: Train, rate: float) -> torch.optim.AdamW:
    """AdamW; norms, biases and scale stay outside weight decay; each group knows its peak rate."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in towers.weights().items():
        if factors[name] > 0:
            decay = train.weight_decay if towers.decayed(name) else 0.0
            groups.setdefault((factors[name] * rate, decay), []).append(weight)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), p in groups.items()
        ],
        betas=train.betas,
        fused=True,  # one pass over memory instead of a dozen
    )


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group at this share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
