"""Base and adapted model on the same items, and what may be said about their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Probe, Results
from domainclip.encoders import TowersEncoder, encode_images
from domainclip.errors import DataError, RecipeError
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


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; the same on every process."""

    rows: list[Row]
    protocol: list[dict[str, Any]]  # one entry a probe and set, JSON
    warnings: list[str]
    valid: bool
    resamples: int
    seed: int


def evaluate(
    base: Encoder,
    adapted: Encoder | None,
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Every probe on every set, for both models on the same items; `adapted` may be missing.

    Raises: DataError when no image of a set can be read, RecipeError when no probe finds what it needs.
    """
    encoders = [base] if adapted is None else [base, adapted]
    warnings = _preparation(encoders)
    valid = not warnings
    rows: list[Row] = []
    protocol: list[dict[str, Any]] = []
    for data in sets:
        ready, lost = _ready(encoders, data)
        if lost:
            warnings.append(
                f"{data.name}: {lost} of {len(data.items)} images cannot be read; left out for both models"
            )
        for probe in probes.values():
            results = [probe(encoder, ready) for encoder in encoders]
            found = [_row(results, i, resamples, seed) for i in range(len(results[0].metrics))]
            warnings += [*results[0].warnings, *_doubts(found)]
            rows += judged(found)
            protocol.append(_protocol(probe, results[0], ready, lost))
    if not rows:
        why = "; ".join(
            f"{entry['probe']} on {entry['dataset']}: {entry['details'].get('not_measured', 'no figures')}"
            for entry in protocol
        )
        raise RecipeError(f"nothing can be measured: {why or 'name at least one probe and one set'}")
    return Evaluation(rows, protocol, list(dict.fromkeys(warnings)), valid, resamples, seed)


def _preparation(encoders: Sequence[Encoder]) -> list[str]:
    """Figures of models that see differently prepared images are not comparable."""
    ways = {encoder.preparation for encoder in encoders if isinstance(encoder, TowersEncoder)}
    if len(ways) < 2:
        return []
    return ["base and adapted model prepare images differently: their figures must not be compared"]


def _ready(encoders: Sequence[Encoder], data: EvaluationSet) -> tuple[EvaluationSet, int]:
    """The readable items in order of their ids, and how many were not readable."""
    order = sorted(range(len(data.items)), key=list(data.items["id"]).__getitem__)
    items = data.items.select(order, keep_in_memory=True)
    towers = [encoder for encoder in encoders if isinstance(encoder, TowersEncoder)]
    readable = encode_images(towers, items) if towers else items
    if not len(readable):
        raise DataError(f"{data.name}: none of its {len(items)} images can be read: check the corpus path")
    return replace(data, items=readable), len(items) - len(readable)


def _row(results: Sequence[Results], i: int, resamples: int, seed: int) -> Row:
    first, *others = [result.metrics[i] for result in results]
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
    """The same rows with their verdicts.

    A whole figure counts by its own interval. The parts of one figure are looked at together, so their p
    values are first adjusted for how many there are: among 20 classes one would differ by luck alone.
    """
    verdicts = {row.metric: _verdict(row, settled=True) for row in rows if not row.part}
    for whole in {row.whole for row in rows if row.part}:
        parts = [row for row in rows if row.part and row.whole == whole]
        p = statistics.holm([_p(row) for row in parts])
        verdicts |= {row.metric: _verdict(row, value <= 0.05) for row, value in zip(parts, p, strict=True)}
    return [replace(row, verdict=verdicts[row.metric]) for row in rows]


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


def _doubts(rows: Sequence[Row]) -> list[str]:
    doubts = []
    for row in rows:
        if row.part:
            continue
        if row.groups < MIN_GROUPS:
            doubts.append(
                f"{row.dataset}: only {row.groups} groups: no interval can be given below {MIN_GROUPS}"
            )
        elif row.groups < _ROUGH:
            doubts.append(
                f"{row.dataset}: only {row.groups} groups: intervals are narrower than they should be"
            )
        if row.undefined > _RARELY:
            share = f"{row.undefined:.0%} of the resamples"
            doubts.append(
                f"{row.dataset}: {row.metric} does not exist in {share}: read its interval with care"
            )
    return doubts


def _protocol(probe: Probe, results: Results, data: EvaluationSet, lost: int) -> dict[str, Any]:
    return {
        "probe": results.probe,
        "version": results.version,
        "citation": probe.citation,
        "dataset": results.dataset,
        "items": len(data.items),
        "unreadable": lost,
        "primary": results.primary,
        "chance": {metric.name: metric.chance for metric in results.metrics if "/" not in metric.name},
        "details": results.details,
    }
