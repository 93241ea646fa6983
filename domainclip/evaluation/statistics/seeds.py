"""Differences between training variants with several seeds each: intervals over items and over seeds.

Legend: n items, s seeds, r resamples, k jackknife values.

The seed is chance as much as the choice of patients is. Two variances add up: that of the mean over the seeds
in a bootstrap over groups, and that between the seeds, divided by their number. The second is pooled over all
variants of a table, as in an analysis of variance, since three seeds alone estimate their spread poorly.
Degrees of freedom by Satterthwaite's formula (doi:10.2307/3002019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from domainclip.evaluation.statistics.aggregates import Aggregate, point_estimate
from domainclip.evaluation.statistics.bootstrap import degrees_of_freedom, jackknife, resampled
from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate

Scores = Mapping[int, np.ndarray]  # by seed: (n, …)


@dataclass(frozen=True)
class Trials:
    """One metric of one variant, over its seeds."""

    values: Mapping[int, float]  # by seed
    mean: float
    from_base: Estimate
    from_reference: Estimate | None  # seed by seed; None for the reference itself, or without a common seed


def over_seeds(
    aggregate: Aggregate,
    base: np.ndarray,
    variants: Mapping[str, Scores],
    groups: Sequence[str],
    resamples: int,
    seed: int,
    reference: str | None = None,
) -> dict[str, Trials]:
    """The mean of each variant, and its differences from the base and from the reference variant.

    Every resample draws the same groups for all models. The metric is computed for each seed and then
    averaged: averaging the scores first would measure an ensemble, which was not trained.
    """
    names = [(variant, number) for variant, scores in variants.items() for number in scores]
    models = [base, *(variants[variant][number] for variant, number in names)]
    drawn = resampled(aggregate, models, groups, resamples, seed)
    count = len(set(groups))
    enough = count >= MIN_GROUPS
    without = jackknife(aggregate, models, groups) if enough else [np.full(1, np.nan)] * len(models)
    measured = [
        _Model(point_estimate(aggregate, m), d, w, m) for m, d, w in zip(models, drawn, without, strict=True)
    ]
    by_variant: dict[str, dict[int, _Model]] = {variant: {} for variant in variants}
    for (variant, number), model in zip(names, measured[1:], strict=True):
        by_variant[variant][number] = model
    from_base = {
        v: [_change(model, measured[0], groups) for model in seeds.values()]
        for v, seeds in by_variant.items()
    }
    reference_seeds = by_variant.get(reference, {}) if reference else {}
    from_reference = {
        v: [
            _change(model, reference_seeds[number], groups)
            for number, model in seeds.items()
            if number in reference_seeds
        ]
        for v, seeds in by_variant.items()
        if v != reference
    }
    base_changes, reference_changes = (
        _mean_differences(from_base, count),
        _mean_differences(from_reference, count),
    )
    values = {v: {number: model.value for number, model in seeds.items()} for v, seeds in by_variant.items()}
    return {
        v: Trials(
            values[v], float(np.mean(list(values[v].values()))), base_changes[v], reference_changes.get(v)
        )
        for v in variants
        if values[v]
    }


@dataclass(frozen=True)
class _Model:
    value: float
    drawn: np.ndarray  # (r,)
    without: np.ndarray  # (k,)
    scores: np.ndarray


@dataclass(frozen=True)
class _Change:
    """The difference of one seed, and the groups in which any score differs."""

    value: float
    drawn: np.ndarray
    without: np.ndarray
    groups: frozenset[str]


def _change(model: _Model, other: _Model, groups: Sequence[str]) -> _Change:
    alike = np.isclose(model.scores, other.scores, rtol=0, atol=1e-12, equal_nan=True).reshape(
        len(groups), -1
    )
    moved = np.asarray(groups, dtype=str)[~alike.all(axis=1)]
    # Equal sums of thirds may differ in their last bit.
    value = float(np.round(model.value - other.value, 12))
    return _Change(
        value,
        np.round(model.drawn - other.drawn, 12),
        np.round(model.without - other.without, 12),
        frozenset(moved.tolist()),
    )


def _mean_differences(changes: Mapping[str, Sequence[_Change]], groups: int) -> dict[str, Estimate]:
    """The mean difference of each variant that has one, with its interval and p."""
    spread, df = _between_seeds([[change.value for change in each] for each in changes.values()])
    return {v: _mean_difference(each, groups, spread, df) for v, each in changes.items() if each}


def _between_seeds(values: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The pooled variance of a single seed's value within its variant, and its degrees of freedom."""
    df = sum(len(each) - 1 for each in values if each)
    squares = sum(float(((np.asarray(each) - np.mean(each)) ** 2).sum()) for each in values if each)
    return (squares / df if df else 0.0), df


def _mean_difference(each: Sequence[_Change], groups: int, spread: float, seeds_df: int) -> Estimate:
    """Student's t interval of the mean, from the variance over items and the variance over seeds."""
    value = float(np.mean([change.value for change in each]))
    if groups < MIN_GROUPS:
        return Estimate(value, float("nan"), float("nan"), float("nan"))
    items_df = degrees_of_freedom(np.mean([change.without for change in each], axis=0), groups)
    drawn = np.mean([change.drawn for change in each], axis=0)
    # Resampling g groups gives a spread that is too small by √((g-1)/g).
    items = float(np.nanvar(drawn)) * (items_df + 1) / items_df if not np.isnan(drawn).all() else float("nan")
    seeds = spread / len(each)
    total = items + seeds
    # Swapping the models in each of k groups has 2ᵏ outcomes, so no p lies below 2·2⁻ᵏ.
    least = 2.0 ** (1 - len(frozenset().union(*(change.groups for change in each))))
    if total == 0.0:
        return Estimate(value, value, value, 1.0 if value == 0 else min(1.0, least))
    df = total**2 / (items**2 / items_df + (seeds**2 / seeds_df if seeds_df else 0.0))
    reach = float(t.ppf(0.975, df)) * total**0.5
    p = float(2 * t.sf(abs(value) / total**0.5, df))
    return Estimate(value, value - reach, value + reach, min(1.0, max(p, least)) if p == p else p)
