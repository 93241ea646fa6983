"""Clean and noisy pairs, separated by their losses: a mixture of two normal distributions.

Legend: n losses.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

_ITERATIONS = 50
_MIN_VARIANCE = 5e-4  # of losses scaled to 0 … 1: neither component collapses to one point


def clean_probability(losses: Tensor) -> Tensor:
    """(n,) the probability that each loss is of the component with the smaller mean; 1 if all are equal.

    Expectation–maximisation in fp64 from the smallest and the largest loss, without a random start: the same
    on every process. No gradient.
    """
    values = losses.detach().double()
    lowest, highest = values.aminmax()
    if len(values) < 2 or not highest > lowest:
        return torch.ones_like(losses)
    x = ((values - lowest) / (highest - lowest))[:, None]  # (n, 1)
    mean, share = x.new_tensor([0.0, 1.0]), x.new_tensor([0.5, 0.5])
    variance = x.var(correction=0).clamp_min(_MIN_VARIANCE).expand(2)
    for _ in range(_ITERATIONS):
        posterior = _posterior(x, mean, variance, share)
        size = posterior.sum(0).clamp_min(1e-9)
        mean = (posterior * x).sum(0) / size
        variance = (posterior * (x - mean).square()).sum(0) / size + _MIN_VARIANCE
        share = size / len(x)
    return _posterior(x, mean, variance, share)[:, int(mean.argmin())].to(losses.dtype)


def _posterior(x: Tensor, mean: Tensor, variance: Tensor, share: Tensor) -> Tensor:
    """(n, 2) the probability of each component for each loss."""
    spread = (x - mean).square() / variance + variance.log() + log(2 * pi)
    return (share.log() - spread / 2).softmax(dim=1)
