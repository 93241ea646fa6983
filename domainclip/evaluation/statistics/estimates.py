"""Estimates of a metric for one model, or for two on the same items, with intervals and p values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate, auroc, mean, point_estimate
from domainclip.evaluation.statistics.bootstrap import (
    bca,
    degrees_of_freedom,
    interval,
    jackknife,
    p_value,
    resampled,
    share_interval,
)
from domainclip.evaluation.statistics.closed_form import delong_test, mcnemar, wilson

Method = Literal["expanded", "percentile", "bca"]

# With g groups that all change in one direction the sign test reaches p = 2·2⁻ᵍ, so below six groups no
# difference is significant at the 95 % level; a bootstrap would still print a narrow interval.
MIN_GROUPS = 6


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
    least_p: float = 0.0  # smallest p that any difference could reach with these groups
    method: str = "expanded"  # of the intervals; also where BCa was requested and does not exist


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

    `share`: the metric lies between 0 and 1, as a rank does not.
    """
    models = [base] if adapted is None else [base, adapted]
    count = len(set(groups))
    drawn = resampled(aggregate, models, groups, resamples, seed)
    # Below six groups there is no interval, and with the only group left out there is nothing to aggregate.
    enough = count >= MIN_GROUPS
    without = jackknife(aggregate, models, groups) if enough else [np.full(1, np.nan)] * len(models)
    spreads = [
        _Spread(point_estimate(aggregate, scores), drawn[i], without[i], count)
        for i, scores in enumerate(models)
    ]
    if adapted is not None:
        spreads.append(spreads[1].minus(spreads[0]))
    used = method if method != "bca" or all(spread.corrected() for spread in spreads) else "expanded"
    estimates = [Estimate(s.value, *_interval_or_wilson(s, used, share)) for s in spreads[: len(models)]]
    undefined = float(np.isnan(drawn[0]).mean())
    if adapted is None:
        return PairedComparison(estimates[0], None, None, count, undefined, method=used)
    p, least = _p(aggregate, base, adapted, groups, spreads[2])
    change = Estimate(spreads[2].value, *spreads[2].interval(used, share=False), p)
    return PairedComparison(estimates[0], estimates[1], change, count, undefined, least, used)


@dataclass(frozen=True)
class _Spread:
    """The inputs of an interval: the value, its r resamples, and its jackknife values."""

    value: float
    drawn: np.ndarray  # (r,)
    without: np.ndarray
    groups: int

    def minus(self, other: _Spread) -> _Spread:
        """The paired difference, rounded: equal sums of thirds may differ in their last bit."""
        value = float(np.round(self.value - other.value, 12))
        drawn, without = self.drawn - other.drawn, self.without - other.without
        return _Spread(value, np.round(drawn, 12), np.round(without, 12), self.groups)

    @property
    def df(self) -> float:
        return degrees_of_freedom(self.without, self.groups)

    def corrected(self) -> tuple[float, float] | None:
        return bca(self.drawn, self.value, self.without, df=self.df) if self.groups >= MIN_GROUPS else None

    def interval(self, method: str, share: bool) -> tuple[float, float]:
        if self.groups < MIN_GROUPS:
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
    if flat and spread.groups >= MIN_GROUPS:
        return wilson(spread.value * spread.groups, spread.groups)
    return spread.interval(method, share)


def _p(
    aggregate: Aggregate, base: np.ndarray, adapted: np.ndarray, groups: Sequence[str], change: _Spread
) -> tuple[float, float]:
    """The p value of the difference, and the smallest value that it could have.

    Where every group is one item: McNemar's exact p of a share of right answers, and DeLong's of an AUROC.
    Otherwise the bootstrap's, never below what its resamples and degrees of freedom allow. Where k groups
    changed, swapping the models group by group has 2ᵏ outcomes, so no p lies below 2·2⁻ᵏ: a test that would
    call five changes of one sign certain is limited to that.
    """
    if change.groups < MIN_GROUPS:
        return float("nan"), float("nan")
    single = change.groups == len(base)
    counted = bool(np.isin(base, (0.0, 1.0)).all() and np.isin(adapted, (0.0, 1.0)).all())
    if aggregate is mean and counted and single:
        least = 2.0 ** (1 - change.groups)
        return mcnemar(int((adapted > base).sum()), int((adapted < base).sum())), least
    # NaN in both scores: not measured for either model; in one of them: a change.
    alike = np.isclose(adapted, base, rtol=0, atol=1e-12, equal_nan=True).reshape(len(base), -1)
    changed = len(set(np.asarray(groups, dtype=str)[~alike.all(axis=1)]))
    least = 2.0 ** (1 - changed)
    exact = _delong_p(aggregate, base, adapted) if single else None
    if exact is not None:
        return float(min(1.0, max(exact, least))), least
    least = max(least, p_value(np.ones(len(change.drawn)), change.df))
    return float(min(1.0, max(p_value(change.drawn, change.df), least))), least


def _delong_p(aggregate: Aggregate, base: np.ndarray, adapted: np.ndarray) -> float | None:
    """DeLong's paired p, where the metric is an AUROC with two items of each class and some spread."""
    if not isinstance(aggregate, partial) or aggregate.func is not auroc:
        return None
    labels = np.asarray(aggregate.keywords["labels"], dtype=np.float64)
    known = ~np.isnan(labels)
    if min((labels == 1).sum(), (labels == 0).sum()) < 2:
        return None
    _, z, p = delong_test(base[known], adapted[known], labels[known])
    return p if z else None
