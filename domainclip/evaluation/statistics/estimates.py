"""Estimates of a metric for one model, or for two on the same items, with intervals and p values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from domainclip.evaluation.statistics.aggregates import (
    Aggregate,
    auroc,
    average_precision,
    macro_auroc,
    macro_average_precision,
    macro_mean,
    macro_sensitivity_at_specificity,
    point_estimate,
    sensitivity_at_specificity,
)
from domainclip.evaluation.statistics.bootstrap import jackknife, resampled
from domainclip.evaluation.statistics.changes import ALPHA, Change
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects
from domainclip.evaluation.statistics.spreads import Spread, change_of

# With g groups that all change in one direction the sign test reaches p = 2·2⁻ᵍ, so below six groups no
# difference is significant at the 95 % level; a bootstrap would still print a narrow interval.
MIN_GROUPS = 6
# Of one, two or three positives the bootstrap interval of an AUROC holds the truth in 12, 67 and 86 %.
MIN_OF_EACH = 10
_MEANS_OF_TWO_KINDS = (macro_auroc, macro_average_precision, macro_sensitivity_at_specificity)
_OF_TWO_KINDS = (auroc, average_precision, sensitivity_at_specificity)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where undefined. Only differences have a `p`."""

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of zero and p ≤ 0.05; else 0."""
        if self.p is not None and self.p > ALPHA:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class PairedComparison:
    """A metric of both models on the same resamples, and their difference."""

    base: Estimate
    adapted: Estimate | None
    change: Change | None
    groups: int
    undefined: float  # share of the resamples in which the metric is undefined
    least_p: float = 0.0  # smallest p that any difference could reach with these groups, at most 1
    too_few: str = ""  # why there is no interval, in words
    effective_answers: float = inf  # of equal influence, that a difference in retrieval comes from

    @property
    def difference(self) -> Estimate | None:
        """Adapted less base; None for a single model."""
        return None if self.change is None else estimate_of(self.change)


def estimate_of(change: Change, comparisons: int = 1) -> Estimate:
    """The value, interval and p of a difference, alone or among several that are judged together."""
    return Estimate(change.value, *change.interval(comparisons), change.adjusted_p(comparisons))


def compare_paired(
    aggregate: Aggregate,
    base: np.ndarray,
    adapted: np.ndarray | None,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    share: bool = True,
    gallery: Sequence[GalleryEffects] = (),
) -> PairedComparison:
    """Base, adapted and their paired difference: every resample draws the same groups for both.

    `share`: the metric lies between 0 and 1, as a rank does not. `gallery`: of a metric of retrieval, the
    effects of the answers, by model.
    """
    models = [base] if adapted is None else [base, adapted]
    too_few = (gallery[0].too_few if gallery else "") or too_few_groups(aggregate, groups)
    drawn = resampled(aggregate, models, groups, resamples, seed)
    # With the only group left out there is nothing to aggregate.
    without = [np.full(1, np.nan)] * len(models) if too_few else jackknife(aggregate, models, groups)
    count = [_groups_that_count(aggregate, scores, groups) for scores in models]
    spreads = [
        Spread(
            point_estimate(aggregate, scores),
            drawn[i],
            without[i],
            count[i],
            bool(too_few) or count[i] < MIN_GROUPS,
            gallery[i] if gallery else None,
        )
        for i, scores in enumerate(models)
    ]
    estimates = [Estimate(spread.value, *spread.interval(share)) for spread in spreads]
    change, least = None, 0.0
    if adapted is not None:
        pairs, spread = [(adapted, base)], spreads[1].minus(spreads[0])
        change, least = change_of(aggregate, pairs, spread, groups, resamples, seed, share)
    return PairedComparison(
        base=estimates[0],
        adapted=None if adapted is None else estimates[1],
        change=change,
        groups=len(set(groups)),
        undefined=float(np.isnan(drawn[0]).mean()),
        least_p=least,
        too_few=too_few,
        effective_answers=gallery[1].minus(gallery[0]).df if len(gallery) == 2 else inf,
    )


def _groups_that_count(aggregate: Aggregate, scores: np.ndarray, groups: Sequence[str]) -> int:
    """The number of groups that a metric rests on: of a precision, those with a positive answer."""
    counted = aggregate.keywords.get("counted") if isinstance(aggregate, partial) else None
    names = np.asarray(groups, dtype=str)
    return len(set(names if counted is None else names[counted(scores)]))


def too_few_groups(aggregate: Aggregate, groups: Sequence[str]) -> str:
    """Why these groups are too few for an interval, in words; empty when they are enough."""
    count = len(set(groups))
    if count < MIN_GROUPS:
        return f"there are only {count} groups: at least {MIN_GROUPS} are needed"
    if isinstance(aggregate, partial) and aggregate.func is macro_mean:
        # Within a class of one item there is no spread, so an interval would have almost no width.
        largest = np.bincount(aggregate.keywords["classes"]).max(initial=0)
        return f"no class has {MIN_OF_EACH} items" if largest < MIN_OF_EACH else ""
    if isinstance(aggregate, partial) and aggregate.func in _OF_TWO_KINDS:
        labels, names = np.asarray(aggregate.keywords["labels"]), np.asarray(groups, dtype=str)
        with_class, without = (len(set(names[labels == truth])) for truth in (1, 0))
        needed = max(MIN_OF_EACH, _least_negatives(aggregate.keywords.get("specificity", 0.0)))
        if with_class < MIN_OF_EACH or without < needed:
            least = f"{MIN_OF_EACH} of each" if needed == MIN_OF_EACH else f"{MIN_OF_EACH} and {needed}"
            return f"{with_class} groups have the class and {without} do not: at least {least} are needed"
    if isinstance(aggregate, partial) and aggregate.func in _MEANS_OF_TWO_KINDS:
        labels, names = np.asarray(aggregate.keywords["labels"]), np.asarray(groups, dtype=str)
        sides = [min(len(set(names[column == truth])) for truth in (1, 0)) for column in labels.T]
        if max(sides) < MIN_OF_EACH:
            least = f"{MIN_OF_EACH} groups with it and {MIN_OF_EACH} without"
            return f"no class has {least}: the most are {max(sides)}"
    return ""


def _least_negatives(specificity: float) -> int:
    """The negatives of which one is the share above a threshold of this specificity."""
    return int(np.ceil(np.round(1 / (1 - specificity), 6)))
