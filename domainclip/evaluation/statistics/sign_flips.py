"""Group-wise swaps of two models: a permutation test of the difference of two AUROCs.

Where no difference exists, each group might as well have been scored by the other model. The AUROC is linear
in the ranks of the scores: ½ + (mean rank of the positives − that of the negatives) / n. So swapping a group
in the rank-transformed scores flips the sign of its share of the difference, and nothing is sorted again.
With few positives the bootstrap calls most differences significant, since it never draws another positive; a
swap test does not.

Legend: n items, g groups, c classes, r swaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def auroc_shares(
    base: np.ndarray, adapted: np.ndarray, labels: np.ndarray, groups: Sequence[str]
) -> np.ndarray:
    """(g,) the share of each group in the difference of two AUROCs, adapted less base; their sum is it.

    Scores and labels (n,), or (n, c) for the mean over classes; NaN labels are left out.
    """
    columns = (array.reshape(len(array), -1).T for array in (base, adapted, labels))
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares = []
    for first, second, truth in zip(*columns, strict=True):
        known = ~np.isnan(truth)
        positive = truth[known] == 1
        if positive.all() or not positive.any():
            continue  # undefined, and left out of the mean
        rank = rankdata(second[known]) - rankdata(first[known])
        weight = np.where(positive, 1 / positive.sum(), -1 / (~positive).sum()) / known.sum()
        shares.append(np.bincount(member[known], weights=weight * rank, minlength=member.max() + 1))
    return np.mean(shares, axis=0) if shares else np.full(member.max() + 1, np.nan)


def sign_flip_p(shares: np.ndarray, swaps: int, seed: int) -> float:
    """Two-sided p of a sum (g,) among r sums with random signs; the observed one counts as one of them."""
    moved = shares[np.abs(shares) > 1e-12]
    if np.isnan(shares).any():
        return float("nan")
    rng = np.random.default_rng(seed)
    observed, extreme = abs(moved.sum()), 0
    block = max(1, 2_000_000 // max(1, len(moved)))
    for start in range(0, swaps, block):
        signs = rng.integers(0, 2, (min(block, swaps - start), len(moved))) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= observed - 1e-12).sum())
    return (1 + extreme) / (1 + swaps)
