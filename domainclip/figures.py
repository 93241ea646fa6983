"""One figure of a report, and what may be said about the difference between two models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip import statistics
from domainclip.contracts import Results
from domainclip.statistics import MIN_GROUPS, Figure

_ROUGH = 20  # groups below which a percentile interval is known to be too narrow
_RARELY = 0.05  # share of resamples without a figure above which that is said
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "too few groups to tell"


@dataclass(frozen=True)
class Row:
    """One figure of the report. A name with a slash, `accuracy/cat`, is a part of the one before it."""

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str
    chance: float | None
    primary: bool
    n: int
    groups: int
    undefined: float  # share of the resamples in which the figure does not exist
    base: Figure
    adapted: Figure | None
    difference: Figure | None
    ids: Sequence[str]
    owners: Sequence[str]  # the group of each id
    base_scores: np.ndarray
    adapted_scores: np.ndarray | None
    verdict: str | None = None  # one of the four words above; None when a single model was measured

    @property
    def whole(self) -> str:
        """The name of the figure that this is, or is a part of."""
        return self.metric.partition("/")[0]

    @property
    def part(self) -> str:
        """The class or language that a part is about; empty for a whole figure."""
        return self.metric.partition("/")[2]


def row(results: Sequence[Results], name: str, resamples: int, seed: int) -> Row:
    """One figure of one model, or of two on the same items."""
    first, *others = [next(one for one in result.metrics if one.name == name) for result in results]
    other = others[0].scores if others else None
    compared = statistics.compare(
        first.aggregate, first.scores, other, first.groups, resamples, seed, first.unit == "share"
    )
    return Row(
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
    )


def judged(rows: Sequence[Row]) -> list[Row]:
    """The same rows with their verdicts, of one model against another."""
    return judged_together([rows])[0]


def judged_together(models: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """The rows of each model against one and the same, with their verdicts.

    A single comparison of a whole figure counts by its own interval. What is looked at together shares one
    family, whose p values are first adjusted for how many there are: the parts of a figure, for among 20
    classes one would differ by luck alone, and several models beside each other, for the same reason.
    """
    families = defaultdict(list)
    for model, rows in enumerate(models):
        for place, one in enumerate(rows):
            families[one.probe, one.dataset, one.whole, bool(one.part)].append((model, place))
    verdicts = {}
    for (*_, parts), members in families.items():
        alone = not parts and len(members) == 1
        p = [0.0] if alone else statistics.holm([_p(models[model][place]) for model, place in members])
        for (model, place), value in zip(members, p, strict=True):
            verdicts[model, place] = _verdict(models[model][place], value <= 0.05)
    return [
        [replace(one, verdict=verdicts[model, place]) for place, one in enumerate(rows)]
        for model, rows in enumerate(models)
    ]


def _p(row: Row) -> float:
    p = row.difference.p if row.difference else None
    return float("nan") if p is None else p


def _verdict(row: Row, settled: bool) -> str | None:
    if row.difference is None:
        return None
    if np.isnan(row.difference.low):
        return UNKNOWN
    sign = row.difference.sign if row.higher_is_better else -row.difference.sign
    return {1: BETTER, -1: WORSE, 0: SAME}[sign if settled else 0]


def doubts(rows: Sequence[Row], whole: int) -> list[str]:
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
