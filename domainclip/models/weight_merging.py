"""Several updates of one base as one update: task arithmetic [arXiv:2212.04089] and TIES [arXiv:2306.01708].

Legend: k models, n all weights of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Method = Literal["arithmetic", "ties"]
Update = Mapping[str, Tensor]  # by name of a weight: the adapted weight less that of the base


def merge_updates(
    updates: Sequence[Update], shares: Sequence[float], method: Method, density: float
) -> Update:
    """One update of k: their sum weighted by `shares`, after TIES has removed what interferes.

    TIES: of each update only the `density` (0 to 1) largest entries stay; of those that are left, the sign
    with the larger weighted sum wins, and the others are left out. What stays is the weighted mean of the
    entries with that sign, times the sum of the shares, so that one update alone is the same in both methods.
    """
    if method == "arithmetic":
        return {name: _sum([update[name] for update in updates], shares) for name in updates[0]}
    limits = [_smallest_that_stays(update, density) for update in updates]
    return {
        name: _elected([_trimmed(u[name], limit) for u, limit in zip(updates, limits, strict=True)], shares)
        for name in updates[0]
    }


def _sum(entries: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([share * entry for share, entry in zip(shares, entries, strict=True)]).sum(dim=0)


def _smallest_that_stays(update: Update, density: float) -> float:
    """The magnitude above which the share `density` of all n entries lies; entries of 0 never stay."""
    sizes = np.concatenate([entry.abs().flatten().numpy() for entry in update.values()])
    count = round(density * len(sizes))
    if count >= len(sizes):
        return 0.0
    return float(np.partition(sizes, len(sizes) - count - 1)[len(sizes) - count - 1])


def _trimmed(entry: Tensor, limit: float) -> Tensor:
    return torch.where(entry.abs() > limit, entry, torch.zeros_like(entry))


def _elected(entries: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    stacked = torch.stack(list(entries))
    weights = torch.tensor(list(shares), dtype=stacked.dtype).reshape(-1, *[1] * (stacked.ndim - 1))
    sign = (weights * stacked).sum(dim=0).sign()
    agreeing = weights * ((stacked.sign() == sign) & (stacked != 0))
    total = agreeing.sum(dim=0)
    mean = (agreeing * stacked).sum(dim=0) / total.clamp_min(torch.finfo(stacked.dtype).tiny)
    return torch.where(total > 0, mean * weights.sum(), torch.zeros_like(mean))
