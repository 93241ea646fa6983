"""One figure of a report, and what may be said about the difference between two models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.statistics import closed_form, estimates
from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate

_ROUGH = 20  # groups below which a percentile interval is known to be too narrow
_RARELY = 0.05  # share of resamples without a figure above which that is said
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "too few groups to tell"
NO_VERDICT = "not judged"  # a figure that only describes, or is biased by its own noise


@dataclass(frozen=True)
class MetricHeader:
    """What is said of a figure, whoever reached what.

    A metric with a slash, `accuracy/cat`, is a part of the one before it.
    """

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str
    chance: float | None
    primary: bool
    n: int
    groups: int


@dataclass(frozen=True)
class ComparisonRow(MetricHeader):
    """One figure of the report."""

    undefined: float  # share of the resamples in which the figure does not exist
    base: Estimate
    adapted: Estimate | None
    difference: Estimate | None
    ids: Sequence[str]
    owners: Sequence[str]  # the group of each id
    base_scores: np.ndarray
    adapted_scores: np.ndarray | None
    verdict: str | None = None  # one of the five words above; None when a single model was measured
    least_p: float = 0.0  # that its difference could have had, however large
    judged: bool = True  # whether its difference may be called better or worse

    @property
    def whole(self) -> str:
        """The name of the figure that this is, or is a part of."""
        return self.metric.partition("/")[0]

    @property
    def part(self) -> str:
        """The class or language that a part is about; empty for a whole figure."""
        return self.metric.partition("/")[2]


def compare_metric(results: Sequence[ProbeResult], name: str, resamples: int, seed: int) -> ComparisonRow:
    """One figure of one model, or of two on the same items."""
    first, *others = [next(one for one in result.metrics if one.name == name) for result in results]
    assert all(list(one.ids) == list(first.ids) for one in others), f"{name}: models on different items"
    other = others[0].scores if others else None
    compared = estimates.compare_paired(
        first.aggregate, first.scores, other, first.groups, resamples, seed, first.unit == "share"
    )
    return ComparisonRow(
        probe=results[0].probe,
        dataset=results[0].dataset,
        metric=first.name,
        higher_is_better=first.higher_is_better,
        unit=first.unit,
        chance=first.chance,
        primary=first.name == results[0].primary,
        n=len(first.ids),
        groups=compared.groups,
        undefined=compared.undefined,
        base=compared.base,
        adapted=compared.adapted,
        difference=compared.difference,
        ids=first.ids,
        owners=first.groups,
        base_scores=first.scores,
        adapted_scores=other,
        least_p=compared.least_p,
        judged=first.judged,
    )


def are_comparable(results: Sequence[ProbeResult]) -> tuple[list[str], list[str]]:
    """The figures that every model has on the same items, in the order of the first, and why others are not.

    Items are not left out here to make them the same: what a figure is made of knows how many there are.
    """
    meanings = list(dict.fromkeys(result.meaning for result in results if result.metrics))
    if len(meanings) > 1:
        return [], [f"not compared, for the models are measured differently: {'; '.join(meanings)}"]
    names = list(dict.fromkeys(metric.name for result in results for metric in result.metrics))
    found = {
        name: [one for result in results for one in result.metrics if one.name == name] for name in names
    }
    lacking = [name for name in names if len(found[name]) < len(results)]
    apart = [
        name
        for name, each in found.items()
        if name not in lacking and any(list(one.ids) != list(each[0].ids) for one in each)
    ]
    said = []
    if lacking:
        said.append(f"left out, for not every model has it: {_some(lacking)}")
    if apart:
        said.append(f"left out, for the models are measured on different items: {_some(apart)}")
    return [name for name in names if name not in lacking and name not in apart], said


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def add_verdicts(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The same rows with their verdicts, of one model against another."""
    return add_verdicts_together([rows])[0]


def add_verdicts_together(models: Sequence[Sequence[ComparisonRow]]) -> list[list[ComparisonRow]]:
    """The rows of each model against one and the same, with their verdicts.

    A single comparison of a whole figure counts by its own interval. What is looked at together shares one
    family, whose p values are first adjusted for how many there are: the parts of a figure, for among 20
    classes one would differ by luck alone, and several models beside each other, for the same reason.
    """
    verdicts = {}
    for (*_, parts), members in _families(models).items():
        alone = not parts and len(members) == 1
        p = [0.0] if alone else closed_form.holm([_p(models[model][place]) for model, place in members])
        for (model, place), value in zip(members, p, strict=True):
            verdicts[model, place] = _verdict(models[model][place], value <= 0.05)
    return [
        [replace(one, verdict=verdicts[model, place]) for place, one in enumerate(rows)]
        for model, rows in enumerate(models)
    ]


def underpowered_families(models: Sequence[Sequence[ComparisonRow]], resamples: int) -> list[str]:
    """Families so large that no member could be called different, whatever it did."""
    found = []
    for (probe, dataset, figure, _), members in _families(models).items():
        rows = [models[model][place] for model, place in members]
        least = [row.least_p for row in rows if row.judged and not np.isnan(_p(row))]
        if len(least) > 1 and len(least) * min(least) > 0.05:
            found.append(
                f"{probe} on {dataset}: {figure}: {len(least)} differences are looked at together, of which "
                f"none can be shown: {rows[0].groups} groups and {resamples} resamples give no p below "
                f"{min(least):.2g}: raise evaluate.bootstrap_samples, or measure more groups"
            )
    return found


def _families(
    models: Sequence[Sequence[ComparisonRow]],
) -> dict[tuple[str, str, str, bool], list[tuple[int, int]]]:
    """What is looked at together, as places (model, row)."""
    families = defaultdict(list)
    for model, rows in enumerate(models):
        for place, one in enumerate(rows):
            families[one.probe, one.dataset, one.whole, bool(one.part)].append((model, place))
    return families


def _p(row: ComparisonRow) -> float:
    p = row.difference.p if row.difference else None
    return float("nan") if p is None else p


def _verdict(row: ComparisonRow, settled: bool) -> str | None:
    if row.difference is None:
        return None
    if not row.judged:
        return NO_VERDICT
    if np.isnan(row.difference.low):
        return UNKNOWN
    sign = row.difference.sign if row.higher_is_better else -row.difference.sign
    return {1: BETTER, -1: WORSE, 0: SAME}[sign if settled else 0]


def interval_warnings(rows: Sequence[ComparisonRow], whole: int) -> list[str]:
    """What a reader must know before believing an interval; `whole` is the number of groups in the set."""
    found = []
    for row in rows:
        if row.part:
            continue
        where = row.dataset if row.groups == whole else f"{row.probe} on {row.dataset}"
        if row.groups < MIN_GROUPS:
            found.append(f"{where}: only {row.groups} groups: no interval can be given below {MIN_GROUPS}")
        elif row.groups < _ROUGH:
            found.append(f"{where}: only {row.groups} groups: intervals are narrower than they should be")
        if row.undefined > _RARELY:
            share = f"{row.undefined:.0%} of the resamples"
            found.append(
                f"{row.dataset}: {row.metric} does not exist in {share}: read its interval with care"
            )
    return found
