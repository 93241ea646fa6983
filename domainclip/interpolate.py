"""How far to go from the base to the adapted weights: (1 − α) θ₀ + α θ, α chosen on the validation split.

The first steps away from the base bring most of the gain and cost least of what it knew [arXiv:2109.01903].
So the smallest α wins whose score is within one standard error of the best one: the usual rule for taking
the simpler of two models that the data cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tried:
    """One α and what it reached on the validation split."""

    alpha: float
    score: float
    error: float  # standard error


def set_alpha(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> None:
    """Puts the weights at (1 − α) start + α end.

    An adapter's update is the product B A with B = 0 at the start: scaling B alone scales the update.
    """
    with torch.no_grad():
        for name, weight in weights.items():
            if ".lora_A." in name or alpha == 1.0:
                weight.copy_(end[name])
            else:
                weight.copy_(torch.lerp(start[name], end[name], alpha))


def choose(
    alphas: Sequence[float], measure: Callable[[float], tuple[float, float]]
) -> tuple[float, list[Tried]]:
    """The α to take, and all that were tried; `measure(alpha)` gives score (higher is better) and error."""
    tried = [Tried(alpha, *measure(alpha)) for alpha in sorted(alphas)]
    best = max(tried, key=lambda one: one.score)
    error = best.error if isfinite(best.error) else 0.0  # too few groups for an interval: the best itself
    return next(one.alpha for one in tried if one.score >= best.score - error), tried
