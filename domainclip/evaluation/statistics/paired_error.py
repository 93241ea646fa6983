"""The standard error of a difference, for rules that take the simpler of models that are equally good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate, point_estimate
from domainclip.evaluation.statistics.bootstrap import resampled
from domainclip.evaluation.statistics.estimates import MIN_GROUPS


def paired_error(
    aggregate: Aggregate,
    seeds: Sequence[tuple[np.ndarray, np.ndarray]],
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> float:
    """The standard error of the mean difference between two variants, from the scores of both for each seed.

    The variance over the groups, with both on the same resamples, and that between the seeds, where there are
    several. NaN for fewer groups than an interval needs.
    """
    count = len(set(groups))
    if count < MIN_GROUPS:
        return float("nan")
    drawn = resampled(aggregate, [scores for pair in seeds for scores in pair], groups, resamples, seed)
    differences = np.mean([drawn[2 * i] - drawn[2 * i + 1] for i in range(len(seeds))], axis=0)
    # Resampling g groups gives a spread that is too small by √((g-1)/g).
    variance = float(np.nanvar(differences)) * count / (count - 1)
    if len(seeds) > 1:
        values = [point_estimate(aggregate, a) - point_estimate(aggregate, b) for a, b in seeds]
        variance += float(np.var(values, ddof=1)) / len(seeds)
    return float(variance**0.5)
