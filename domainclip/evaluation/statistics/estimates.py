"""Estimates of a metric for one model, or for two on the same items, with intervals and p values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from domainclip.evaluation.statistics.aggregates import (
    Aggregate,
    auroc,
    average_precision,
    macro_auroc,
    mean,
    point_estimate,
)
from domainclip.evaluation.statistics.bootstrap import (
    bca,
    degrees_of_freedom,
    interval,
    jackknife,
    p_value,
    resampled,
    share_interval,
)
from domainclip.evaluation.statistics.closed_form import mcnemar, wilson
from domainclip.evaluation.statistics.paired_shares import MeanWeights, mean_change
from domainclip.evaluation.statistics.sign_flips import auroc_shares, sign_flip_p

Method = Literal["expanded", "percentile", "bca"]

# With g groups that all change in one direction the sign test reaches p = 2·2⁻ᵍ, so below six groups no
# difference is significant at the 95 % level; a bootstrap would still print a narrow interval.
MIN_GROUPS = 6
# Of one, two or three positives the bootstrap interval of an AUROC holds the truth in 12, 67 and 86 %.
MIN_OF_EACH = 10


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
        if self.p is not None and self.p > 0.05:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class PairedComparison:
    """A metric of both models on the same resamples, and their difference."""

    base: Estimate
    adapted: Estimate | None
    difference: Estimate | None
    groups: int
    undefined: float  # share of the resamples in which the metric is undefined
    least_p: float = 0.0  # smallest p that any difference could reach with these groups, at most 1
    method: str = "expanded"  # of the intervals; also where BCa was requested and does not exist
    too_few: str = ""  # why there is no interval, in words


def compare_paired(
    aggregate: Aggregate,
    base: np.ndarray,
    adapted: np.ndarray | None,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    share: bool = True,
    method: Method = "expanded",
) -> PairedComparison:
    """Base, adapted and their paired difference: every resample draws the same groups for both.

    `share`: the metric lies between 0 and 1, as a rank does not. Differences of mean shares have the interval
    and p of `paired_shares`, differences of AUROCs the p of `sign_flips`.
    """
    models = [base] if adapted is None else [base, adapted]
    too_few = too_few_groups(aggregate, groups)
    drawn = resampled(aggregate, models, groups, resamples, seed)
    # With the only group left out there is nothing to aggregate.
    without = [np.full(1, np.nan)] * len(models) if too_few else jackknife(aggregate, models, groups)
    spreads = [
        _Spread(point_estimate(aggregate, scores), drawn[i], without[i], len(set(groups)), bool(too_few))
        for i, scores in enumerate(models)
    ]
    if adapted is not None:
        spreads.append(spreads[1].minus(spreads[0]))
    used = method if method != "bca" or all(spread.corrected() for spread in spreads) else "expanded"
    estimates = [Estimate(s.value, *_interval_or_wilson(s, used, share)) for s in spreads[: len(models)]]
    change, least = None, 0.0
    if adapted is not None:
        pair = _Pair(aggregate, base, adapted, groups)
        change, least = pair.difference(spreads[2], used, share, resamples, seed)
    return PairedComparison(
        base=estimates[0],
        adapted=None if adapted is None else estimates[1],
        difference=change,
        groups=len(set(groups)),
        undefined=float(np.isnan(drawn[0]).mean()),
        least_p=least,
        method=used,
        too_few=too_few,
    )


def too_few_groups(aggregate: Aggregate, groups: Sequence[str]) -> str:
    """Why these groups are too few for an interval, in words; empty when they are enough."""
    count = len(set(groups))
    if count < MIN_GROUPS:
        return f"there are only {count} groups: at least {MIN_GROUPS} are needed"
    if isinstance(aggregate, partial) and aggregate.func in (auroc, average_precision):
        labels, names = np.asarray(aggregate.keywords["labels"]), np.asarray(groups, dtype=str)
        with_class, without = (len(set(names[labels == truth])) for truth in (1, 0))
        if min(with_class, without) < MIN_OF_EACH:
            return (
                f"{with_class} groups have the class and {without} do not: at least {MIN_OF_EACH} of each "
                "are needed"
            )
    return ""


@dataclass(frozen=True)
class _Spread:
    """The inputs of an interval: the value, its r resamples, and its jackknife values."""

    value: float
    drawn: np.ndarray  # (r,)
    without: np.ndarray
    groups: int
    too_few: bool  # groups for an interval

    def minus(self, other: _Spread) -> _Spread:
        """The paired difference, rounded: equal sums of thirds may differ in their last bit."""
        value = float(np.round(self.value - other.value, 12))
        drawn, without = self.drawn - other.drawn, self.without - other.without
        return _Spread(value, np.round(drawn, 12), np.round(without, 12), self.groups, self.too_few)

    @property
    def df(self) -> float:
        return degrees_of_freedom(self.without, self.groups)

    def corrected(self) -> tuple[float, float] | None:
        return None if self.too_few else bca(self.drawn, self.value, self.without, df=self.df)

    def interval(self, method: str, share: bool) -> tuple[float, float]:
        if self.too_few:
            return float("nan"), float("nan")
        if method == "percentile":
            return interval(self.drawn)
        if method == "bca":
            return self.corrected() or (float("nan"), float("nan"))
        if share:
            return share_interval(self.drawn, self.value, self.df)
        return interval(self.drawn, df=self.df)


def _interval_or_wilson(spread: _Spread, method: str, share: bool) -> tuple[float, float]:
    """Wilson's interval where all items are right or all are wrong, since resampling then has no spread."""
    drawn = spread.drawn[~np.isnan(spread.drawn)]
    flat = share and spread.value in (0.0, 1.0) and bool((drawn == spread.value).all())
    if flat and not spread.too_few:
        return wilson(spread.value * spread.groups, spread.groups)
    return spread.interval(method, share)


@dataclass(frozen=True)
class _Pair:
    """The scores of two models on the same items."""

    aggregate: Aggregate
    base: np.ndarray
    adapted: np.ndarray
    groups: Sequence[str]

    def difference(
        self, change: _Spread, method: str, share: bool, resamples: int, seed: int
    ) -> tuple[Estimate, float]:
        """The difference with its interval and p, and the smallest p that it could have."""
        if change.too_few:
            return Estimate(change.value, float("nan"), float("nan"), float("nan")), float("nan")
        # Swapping the models in each of k changed groups has 2ᵏ outcomes, so no p lies below 2·2⁻ᵏ.
        least = min(1.0, 2.0 ** (1 - self._changed_groups()))
        weights = MeanWeights.of(self.aggregate, len(self.base)) if share and method == "expanded" else None
        if weights is not None:
            mean_difference = mean_change(self.adapted - self.base, self.groups, weights)
            bounds, p = mean_difference.interval(), mean_difference.p
        else:
            bounds, p = change.interval(method, share=False), p_value(change.drawn, change.df)
        if self._counts_right_answers():
            p, least = self._mcnemar_p(), 2.0 ** (1 - change.groups)
        elif self._is_auroc():
            shares = auroc_shares(self.base, self.adapted, self._labels(), self.groups)
            p, least = sign_flip_p(shares, resamples, seed), max(least, 1 / (1 + resamples))
        elif weights is None:
            least = max(least, p_value(np.ones(len(change.drawn)), change.df))
        return Estimate(change.value, *bounds, float(min(1.0, max(p, least)))), least

    def _changed_groups(self) -> int:
        """How many groups have an item whose scores differ; a score that one model alone lacks differs."""
        alike = np.isclose(self.adapted, self.base, rtol=0, atol=1e-12, equal_nan=True)
        changed = ~alike.reshape(len(self.base), -1).all(axis=1)
        return len(set(np.asarray(self.groups, dtype=str)[changed]))

    def _counts_right_answers(self) -> bool:
        """Whether the metric is a share of right answers to independent items."""
        single = len(set(self.groups)) == len(self.base)
        counted = np.isin(self.base, (0.0, 1.0)).all() and np.isin(self.adapted, (0.0, 1.0)).all()
        return bool(self.aggregate is mean and single and counted)

    def _mcnemar_p(self) -> float:
        return mcnemar(int((self.adapted > self.base).sum()), int((self.adapted < self.base).sum()))

    def _is_auroc(self) -> bool:
        return isinstance(self.aggregate, partial) and self.aggregate.func in (auroc, macro_auroc)

    def _labels(self) -> np.ndarray:
        assert isinstance(self.aggregate, partial)
        return np.asarray(self.aggregate.keywords["labels"], dtype=np.float64)
