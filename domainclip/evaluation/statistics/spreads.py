"""How far a metric spreads over the resamples, and the interval of one model or of a difference from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate
from domainclip.evaluation.statistics.bootstrap import (
    degrees_of_freedom,
    interval,
    resampled_variance,
    share_interval,
)
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.closed_form import wilson
from domainclip.evaluation.statistics.exact_tests import Pair, exact_test
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects
from domainclip.evaluation.statistics.paired_shares import MeanWeights, mean_change


@dataclass(frozen=True)
class Spread:
    """The inputs of an interval: the value of a metric, its r resamples, and its jackknife values."""

    value: float
    drawn: np.ndarray  # (r,)
    without: np.ndarray
    groups: int
    too_few: bool  # groups for an interval
    gallery: GalleryEffects | None = None  # of a metric of retrieval

    def minus(self, other: Spread) -> Spread:
        """The paired difference, rounded: equal sums of thirds may differ in their last bit."""
        value = float(np.round(self.value - other.value, 12))
        drawn, without = self.drawn - other.drawn, self.without - other.without
        groups, too_few = min(self.groups, other.groups), self.too_few or other.too_few
        gallery = self.gallery.minus(other.gallery) if self.gallery and other.gallery else None
        return Spread(value, np.round(drawn, 12), np.round(without, 12), groups, too_few, gallery)

    @classmethod
    def mean(cls, spreads: Sequence[Spread]) -> Spread:
        """The mean over several seeds of training."""
        galleries = [spread.gallery for spread in spreads if spread.gallery is not None]
        return cls(
            float(np.mean([spread.value for spread in spreads])),
            np.mean([spread.drawn for spread in spreads], axis=0),
            np.mean([spread.without for spread in spreads], axis=0),
            spreads[0].groups,
            spreads[0].too_few,
            GalleryEffects.mean(galleries) if len(galleries) == len(spreads) else None,
        )

    @property
    def df(self) -> float:
        """Degrees of freedom of the spread over the groups."""
        return degrees_of_freedom(self.without, self.groups)

    def interval(self, share: bool) -> tuple[float, float]:
        """The interval of one model; Wilson's where all are right or all wrong: resamples have no spread."""
        if self.too_few:
            return float("nan"), float("nan")
        drawn = self.drawn[~np.isnan(self.drawn)]
        if share and self.value in (0.0, 1.0) and bool((drawn == self.value).all()):
            return wilson(self.value * self.groups, self.groups)
        factor = 1.0 if self.gallery is None else self.gallery.spread_factor
        df = self.df if self.gallery is None else min(self.df, self.gallery.df)
        if share:
            return share_interval(self.drawn, self.value, df, factor=factor)
        return interval(self.drawn if factor == 1 else self.value + factor * (self.drawn - self.value), df=df)


def change_of(
    aggregate: Aggregate,
    pairs: Sequence[Pair],
    spread: Spread,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    share: bool = True,
) -> tuple[Change, float]:
    """The difference of one pair of models, or the mean over several seeds, and the smallest p it could have.

    `spread` is that of the difference. Means of shares have the interval of `paired_shares`, all other
    metrics Student's t with the variance of the resamples; of retrieval, with that of the answers (see
    `gallery_effects`). NaN where there are too few groups.
    """
    if spread.too_few:
        nan = float("nan")
        return Change(spread.value, spread.value, nan, nan), nan
    weights = MeanWeights.of(aggregate, len(groups)) if share else None
    if weights is not None:
        difference = np.mean([adapted - base for adapted, base in pairs], axis=0)
        change = mean_change(difference, groups, weights)
    else:
        df = spread.df
        variance = resampled_variance(spread.drawn, df)
        if share:  # as of one more group of each sign: that no group changed does not show that none would
            variance += 2 / (spread.groups + 2) ** 2
        change = Change(spread.value, spread.value, variance, df)
    if spread.gallery is not None:
        change = spread.gallery.widened(change, of_mean=weights is not None)
    test = exact_test(aggregate, pairs, groups, resamples, seed)
    return replace(change, exact_p=test.p), test.least
