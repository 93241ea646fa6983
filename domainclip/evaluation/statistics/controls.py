"""Negative control: how often the whole procedure claims a difference between equal models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate
from domainclip.evaluation.statistics.estimates import compare_paired


def false_positive_rate(
    aggregate: Aggregate,
    base: np.ndarray,
    adapted: np.ndarray,
    groups: Sequence[str],
    swaps: int = 200,
    resamples: int = 400,
    seed: int = 0,
) -> float:
    """The share of comparisons with a claim when base and adapted are swapped at random, group by group.

    Swapping keeps how much the models differ and removes which of them is better, so every claim of
    `compare_paired` is false. At most 0.05 is expected, ± √(0.05·0.95/swaps).
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    claims = 0
    for swap in range(swaps):
        swapped = (rng.random(len(names)) < 0.5)[member].reshape(-1, *[1] * (base.ndim - 1))
        first, second = np.where(swapped, adapted, base), np.where(swapped, base, adapted)
        difference = compare_paired(aggregate, first, second, groups, resamples, seed + swap).difference
        claims += difference is not None and difference.sign != 0
    return claims / swaps
