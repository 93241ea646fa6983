"""Figures of one model and of two on the same items, with their intervals."""

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

# With g groups that all move one way the sign test reaches p = 2·2⁻ᵍ, so below six groups nothing at all
# can be said at the 95 % level; a bootstrap would still print a narrow interval.
MIN_GROUPS = 6


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where undefined. `p` stands on differences only."""

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of zero, and p at most at 0.05; else 0."""
        if self.p is not None and self.p > 0.05:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class PairedComparison:
    """One figure of both models on the same resamples, and their difference."""

    base: Estimate
    adapted: Estimate | None
    difference: Estimate | None
    groups: int
    undefined: float  # share of the resamples in which the figure does not exist
    least_p: float = 0.0  # that the difference could have had, however large
    method: str = "expanded"  # of the intervals: this one too where BCa was asked for and does not exist


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

    `share` says that the figure lies between 0 and 1, as ranks do not.
    """
    models = [base] if adapted is None else [base, adapted]
    count = len(set(groups))
    drawn = resampled(aggregate, models, groups, resamples, seed)
    # Below six groups no interval is read, and with the only group left out there is nothing to aggregate.
    enough = count >= MIN_GROUPS
    without = jackknife(aggregate, models, groups) if enough else [np.full(1, np.nan)] * len(models)
    spreads = [
        _Spread(point_estimate(aggregate, scores), drawn[i], without[i], count)
        for i, scores in enumerate(models)
    ]
    if adapted is not None:
        spreads.append(spreads[1].less(spreads[0]))
    used = method if method != "bca" or all(one.corrected() for one in spreads) else "expanded"
    found = [Estimate(one.value, *_beyond_the_sample(one, used, share)) for one in spreads[: len(models)]]
    undefined = float(np.isnan(drawn[0]).mean())
    if adapted is None:
        return PairedComparison(found[0], None, None, count, undefined, method=used)
    p, least = _p(aggregate, base, adapted, groups, spreads[2])
    change = Estimate(spreads[2].value, *spreads[2].interval(used, share=False), p)
    return PairedComparison(found[0], found[1], change, count, undefined, least, used)


@dataclass(frozen=True)
class _Spread:
    """A figure with all that its interval is read from: r resamples, and groups left out in turn."""

    value: float
    drawn: np.ndarray  # (r,)
    without: np.ndarray
    groups: int

    def less(self, other: _Spread) -> _Spread:
        """The paired difference, without specks: equal sums of thirds may differ in their last bit."""
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


def _beyond_the_sample(found: _Spread, method: str, share: bool) -> tuple[float, float]:
    """Resampling cannot see beyond a sample in which all are right, or all wrong; Wilson's interval can."""
    drawn = found.drawn[~np.isnan(found.drawn)]
    flat = share and found.value in (0.0, 1.0) and bool((drawn == found.value).all())
    if flat and found.groups >= MIN_GROUPS:
        return wilson(found.value * found.groups, found.groups)
    return found.interval(method, share)


def _p(
    aggregate: Aggregate, base: np.ndarray, adapted: np.ndarray, groups: Sequence[str], change: _Spread
) -> tuple[float, float]:
    """The p of the difference, and the least that it could have been.

    Where every group is one item: McNemar's exact p of a share of right answers, and DeLong's of an AUROC.
    Else the bootstrap's, which is never below what its resamples and degrees of freedom allow. Where k groups
    changed at all, swapping the models group by group has 2ᵏ outcomes, so no p lies below 2·2⁻ᵏ; what sees
    five changes of one sign as certain is held to that.
    """
    if change.groups < MIN_GROUPS:
        return float("nan"), float("nan")
    single = change.groups == len(base)
    counted = bool(np.isin(base, (0.0, 1.0)).all() and np.isin(adapted, (0.0, 1.0)).all())
    if aggregate is mean and counted and single:
        least = 2.0 ** (1 - change.groups)
        return mcnemar(int((adapted > base).sum()), int((adapted < base).sum())), least
    # NaN in both is what no model was asked; in one of them, a change.
    alike = np.isclose(adapted, base, rtol=0, atol=1e-12, equal_nan=True).reshape(len(base), -1)
    changed = len(set(np.asarray(groups, dtype=str)[~alike.all(axis=1)]))
    least = 2.0 ** (1 - changed)
    exact = _areas_p(aggregate, base, adapted) if single else None
    if exact is not None:
        return float(min(1.0, max(exact, least))), least
    least = max(least, p_value(np.ones(len(change.drawn)), change.df))
    return float(min(1.0, max(p_value(change.drawn, change.df), least))), least


def _areas_p(aggregate: Aggregate, base: np.ndarray, adapted: np.ndarray) -> float | None:
    """DeLong's paired p, when the figure is an AUROC with two items of each kind and some spread."""
    if not isinstance(aggregate, partial) or aggregate.func is not auroc:
        return None
    labels = np.asarray(aggregate.keywords["labels"], dtype=np.float64)
    known = ~np.isnan(labels)
    if min((labels == 1).sum(), (labels == 0).sum()) < 2:
        return None
    _, z, p = delong_test(base[known], adapted[known], labels[known])
    return p if z else None
