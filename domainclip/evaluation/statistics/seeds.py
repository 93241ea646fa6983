"""Differences between ways to train, each tried with several seeds: sure of items and of seeds.

Legend: n items, s seeds, r resamples, k turns of the jackknife.

What a seed does is luck as much as which patients were measured. Two variances add up: the one of a bootstrap
over groups, of the mean over the seeds, and the one that the seeds show among themselves, over their number.
The second is pooled over all variants of a table, as in an analysis of variance, for three seeds alone say
little of their own spread. Degrees of freedom by Satterthwaite's formula (doi:10.2307/3002019).
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
    """One figure of one variant, over its seeds."""

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
    """What each variant reaches, and its differences from the base and from the reference variant.

    Every resample draws the same groups for all models. Each seed's figure is worked out by itself and then
    averaged: scores averaged first would be those of an ensemble, which nobody trained.
    """
    names = [(variant, number) for variant, scores in variants.items() for number in scores]
    models = [base, *(variants[variant][number] for variant, number in names)]
    drawn = resampled(aggregate, models, groups, resamples, seed)
    count = len(set(groups))
    enough = count >= MIN_GROUPS
    without = jackknife(aggregate, models, groups) if enough else [np.full(1, np.nan)] * len(models)
    known = [
        _Model(point_estimate(aggregate, m), d, w, m) for m, d, w in zip(models, drawn, without, strict=True)
    ]
    tried: dict[str, dict[int, _Model]] = {variant: {} for variant in variants}
    for (variant, number), model in zip(names, known[1:], strict=True):
        tried[variant][number] = model
    from_base = {v: [_change(one, known[0], groups) for one in seeds.values()] for v, seeds in tried.items()}
    ours = tried.get(reference, {}) if reference else {}
    from_reference = {
        v: [_change(one, ours[number], groups) for number, one in seeds.items() if number in ours]
        for v, seeds in tried.items()
        if v != reference
    }
    first, second = _figures(from_base, count), _figures(from_reference, count)
    values = {v: {number: one.value for number, one in seeds.items()} for v, seeds in tried.items()}
    return {
        v: Trials(values[v], float(np.mean(list(values[v].values()))), first[v], second.get(v))
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
    """One seed's difference, and the groups in which anything differs at all."""

    value: float
    drawn: np.ndarray
    without: np.ndarray
    groups: frozenset[str]


def _change(one: _Model, other: _Model, groups: Sequence[str]) -> _Change:
    alike = np.isclose(one.scores, other.scores, rtol=0, atol=1e-12, equal_nan=True).reshape(len(groups), -1)
    moved = np.asarray(groups, dtype=str)[~alike.all(axis=1)]
    # Equal sums of thirds may differ in their last bit.
    value = float(np.round(one.value - other.value, 12))
    return _Change(
        value,
        np.round(one.drawn - other.drawn, 12),
        np.round(one.without - other.without, 12),
        frozenset(moved.tolist()),
    )


def _figures(changes: Mapping[str, Sequence[_Change]], groups: int) -> dict[str, Estimate]:
    """The mean difference of each variant that has any, with its interval and p."""
    spread, df = _between_seeds([[one.value for one in each] for each in changes.values()])
    return {v: _figure(each, groups, spread, df) for v, each in changes.items() if each}


def _between_seeds(values: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The pooled variance of a single seed's value within its variant, and its degrees of freedom."""
    df = sum(len(each) - 1 for each in values if each)
    squares = sum(float(((np.asarray(each) - np.mean(each)) ** 2).sum()) for each in values if each)
    return (squares / df if df else 0.0), df


def _figure(each: Sequence[_Change], groups: int, spread: float, seeds_df: int) -> Estimate:
    """Student's interval of the mean, from the variance of the items and that of the seeds."""
    value = float(np.mean([one.value for one in each]))
    if groups < MIN_GROUPS:
        return Estimate(value, float("nan"), float("nan"), float("nan"))
    items_df = degrees_of_freedom(np.mean([one.without for one in each], axis=0), groups)
    drawn = np.mean([one.drawn for one in each], axis=0)
    # Resampling g groups shows a spread that is too small by √((g-1)/g).
    items = float(np.nanvar(drawn)) * (items_df + 1) / items_df if not np.isnan(drawn).all() else float("nan")
    seeds = spread / len(each)
    total = items + seeds
    # Swapping the models in each of k groups has 2ᵏ outcomes, so no p lies below 2·2⁻ᵏ.
    least = 2.0 ** (1 - len(frozenset().union(*(one.groups for one in each))))
    if total == 0.0:
        return Estimate(value, value, value, 1.0 if value == 0 else min(1.0, least))
    df = total**2 / (items**2 / items_df + (seeds**2 / seeds_df if seeds_df else 0.0))
    reach = float(t.ppf(0.975, df)) * total**0.5
    p = float(2 * t.sf(abs(value) / total**0.5, df))
    return Estimate(value, value - reach, value + reach, min(1.0, max(p, least)) if p == p else p)
