"""Does the whole procedure claim differences where there are none? Ask it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate
from domainclip.evaluation.statistics.estimates import PairedComparison, compare_paired


def a_a_control(
    aggregate: Aggregate, scores: np.ndarray, groups: Sequence[str], resamples: int, seed: int
) -> PairedComparison:
    """A model against itself, through the same code: difference 0, interval [0, 0] and p 1, or a fault."""
    return compare_paired(aggregate, scores, scores.copy(), groups, resamples, seed)


def false_positive_rate(
    aggregate: Aggregate,
    base: np.ndarray,
    adapted: np.ndarray,
    groups: Sequence[str],
    swaps: int = 200,
    resamples: int = 400,
    seed: int = 0,
) -> float:
    """The share of claims when nobody is better: base and adapted swapped by lot, group by group.

    Swapping keeps how much the models differ and takes away which of them is better, so whatever `compare`
    still claims is a false claim. At most 0.05 is expected, give or take √(0.05·0.95/swaps).
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    claims = 0
    for swap in range(swaps):
        swapped = (rng.random(len(names)) < 0.5)[member].reshape(-1, *[1] * (base.ndim - 1))
        one, other = np.where(swapped, adapted, base), np.where(swapped, base, adapted)
        found = compare_paired(aggregate, one, other, groups, resamples, seed + swap).difference
        claims += found is not None and found.sign != 0
    return claims / swaps
