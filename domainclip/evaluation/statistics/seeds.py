"""Differences between training variants with several seeds each: intervals over items and over seeds.

Legend: n items, s seeds, r resamples, k jackknife values.

The seed is chance as much as the choice of patients is. Two variances add up: that of the mean over the seeds
in a bootstrap over groups, and that between the seeds, divided by their number. The second is pooled over all
variants of a table, as in an analysis of variance, since three seeds alone estimate their spread poorly.
Degrees of freedom by Satterthwaite's formula (doi:10.2307/3002019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate, point_estimate
from domainclip.evaluation.statistics.bootstrap import jackknife, resampled
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate, estimate_of, too_few_groups
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects
from domainclip.evaluation.statistics.spreads import Spread, change_of

Scores = Mapping[int, np.ndarray]  # by seed: (n, …)
Effects = Mapping[int, GalleryEffects]  # by seed


@dataclass(frozen=True)
class Trials:
    """One metric of one variant, over its seeds."""

    values: Mapping[int, float]  # by seed
    mean: float
    base_change: Change
    reference_change: Change | None  # seed by seed; None for the reference itself, or without a common seed
    comparisons: tuple[int, int] = (1, 1)  # differences judged together: from the base, from the reference

    @property
    def from_base(self) -> Estimate:
        """The difference from the base, its interval and p corrected for the comparisons."""
        return estimate_of(self.base_change, self.comparisons[0])

    @property
    def from_reference(self) -> Estimate | None:
        """The difference from the reference, its interval and p corrected for the comparisons."""
        change = self.reference_change
        return None if change is None else estimate_of(change, self.comparisons[1])


@dataclass(frozen=True)
class _Model:
    scores: np.ndarray
    spread: Spread


@dataclass(frozen=True)
class _Resamples:
    """What all differences of a metric share."""

    aggregate: Aggregate
    groups: Sequence[str]
    resamples: int
    seed: int
    share: bool
    biased: bool

    def models(self, scores: Sequence[np.ndarray], effects: Sequence[GalleryEffects | None]) -> list[_Model]:
        """Every resample draws the same groups for all models."""
        drawn = resampled(self.aggregate, scores, self.groups, self.resamples, self.seed)
        lacking = too_few_groups(self.aggregate, self.groups) or (effects[0].too_few if effects[0] else "")
        too_few = self.biased or bool(lacking)
        without = (
            [np.full(1, np.nan)] * len(scores) if too_few else jackknife(self.aggregate, scores, self.groups)
        )
        count = len(set(self.groups))
        return [
            _Model(m, Spread(point_estimate(self.aggregate, m), d, w, count, too_few, gallery))
            for m, d, w, gallery in zip(scores, drawn, without, effects, strict=True)
        ]

    def mean_change(self, pairs: Sequence[tuple[_Model, _Model]]) -> Change:
        """The mean over the seeds of model less other, over the items alone."""
        spread = Spread.mean([model.spread.minus(other.spread) for model, other in pairs])
        scores = [(model.scores, other.scores) for model, other in pairs]
        return change_of(self.aggregate, scores, spread, self.groups, self.resamples, self.seed, self.share)[
            0
        ]


def over_seeds(
    aggregate: Aggregate,
    base: np.ndarray,
    variants: Mapping[str, Scores],
    groups: Sequence[str],
    resamples: int,
    seed: int,
    reference: str | None = None,
    share: bool = True,
    biased: bool = False,
    base_effects: GalleryEffects | None = None,
    effects: Mapping[str, Effects] | None = None,
) -> dict[str, Trials]:
    """The mean of each variant, and its differences from the base and from the reference variant.

    The metric is computed for each seed and then averaged: averaging the scores first would measure an
    ensemble, which was not trained. `share`: the metric lies between 0 and 1. `biased`: its
    bias grows with the noise, so it has no interval. `effects` and those of the base: of a metric of
    retrieval, as in `compare_paired`.
    """
    drawing = _Resamples(aggregate, groups, resamples, seed, share, biased)
    names = [(variant, number) for variant, scores in variants.items() for number in scores]
    alone, *models = drawing.models(
        [base, *(variants[variant][number] for variant, number in names)],
        [base_effects, *(effects[variant][number] if effects else None for variant, number in names)],
    )
    by_variant: dict[str, dict[int, _Model]] = {variant: {} for variant in variants}
    for (variant, number), model in zip(names, models, strict=True):
        by_variant[variant][number] = model
    others = by_variant.get(reference, {}) if reference else {}
    from_base = {v: [(model, alone) for model in seeds.values()] for v, seeds in by_variant.items()}
    from_reference = {
        v: [(model, others[number]) for number, model in seeds.items() if number in others]
        for v, seeds in by_variant.items()
        if v != reference
    }
    base_changes = _with_seeds(drawing, from_base)
    reference_changes = _with_seeds(drawing, from_reference)
    values = {v: {number: m.spread.value for number, m in seeds.items()} for v, seeds in by_variant.items()}
    return {
        v: Trials(
            values[v], float(np.mean(list(values[v].values()))), base_changes[v], reference_changes.get(v)
        )
        for v in variants
        if values[v]
    }


def _with_seeds(
    drawing: _Resamples, pairs: Mapping[str, Sequence[tuple[_Model, _Model]]]
) -> dict[str, Change]:
    """The mean difference of each variant that has one, with the variance of items and of seeds."""
    values = [[model.spread.minus(other.spread).value for model, other in each] for each in pairs.values()]
    spread, df = _between_seeds(values)
    return {
        v: _plus_variance(drawing.mean_change(each), spread / len(each), df)
        for v, each in pairs.items()
        if each
    }


def _between_seeds(values: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The pooled variance of a single seed's value within its variant, and its degrees of freedom."""
    df = sum(len(each) - 1 for each in values if each)
    squares = sum(float(((np.asarray(each) - np.mean(each)) ** 2).sum()) for each in values if each)
    return (squares / df if df else 0.0), df


def _plus_variance(change: Change, variance: float, df: int) -> Change:
    """The difference with a second variance, and degrees of freedom by Satterthwaite's formula."""
    if not variance > 0 or not change.variance >= 0:
        return change
    total = change.variance + variance
    together = total**2 / (change.variance**2 / change.df + variance**2 / df)
    return replace(change, variance=total, df=together)
