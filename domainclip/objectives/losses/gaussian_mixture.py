"""Two kinds of pairs, told apart by how large their losses are: a mixture of two normal distributions.

Legend: n losses.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

_ROUNDS = 50
_LEAST = 5e-4  # variance, of losses that lie between 0 and 1: neither kind shrinks to one point


def clean(losses: Tensor) -> Tensor:
    """(n,) how probably each loss is of the kind with the smaller mean; 1 for all where they are alike.

    Expectation–maximisation in fp64 from the smallest and the largest loss: the same on every process, and
    with no random start. No gradient.
    """
    found = losses.detach().double()
    lowest, highest = found.aminmax()
    if len(found) < 2 or not highest > lowest:
        return torch.ones_like(losses)
    x = ((found - lowest) / (highest - lowest))[:, None]  # (n, 1)
    mean, share = x.new_tensor([0.0, 1.0]), x.new_tensor([0.5, 0.5])
    variance = x.var(correction=0).clamp_min(_LEAST).expand(2)
    for _ in range(_ROUNDS):
        belongs = _posterior(x, mean, variance, share)
        size = belongs.sum(0).clamp_min(1e-9)
        mean = (belongs * x).sum(0) / size
        variance = (belongs * (x - mean).square()).sum(0) / size + _LEAST
        share = size / len(x)
    return _posterior(x, mean, variance, share)[:, int(mean.argmin())].to(losses.dtype)


def _posterior(x: Tensor, mean: Tensor, variance: Tensor, share: Tensor) -> Tensor:
    """(n, 2) how probable each kind is for each loss."""
    spread = (x - mean).square() / variance + variance.log() + log(2 * pi)
    return (share.log() - spread / 2).softmax(dim=1)
