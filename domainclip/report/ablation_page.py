"""The table of an ablation before it is drawn: the same text and numbers for HTML, Markdown and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE
from domainclip.report import csv_links, phrasing, tradeoff_plot
from domainclip.report.ablation_results import ADJUSTMENT, INTERVAL, AblationRow, AblationTable, Variant
from domainclip.report.citations import linked, linked_in_markdown


@dataclass(frozen=True)
class Cell:
    """What stands of one variant under one figure."""

    value: str
    seeds: str  # their range
    difference: str
    span: str
    verdict: str
    mark: str


def build(table: AblationTable) -> dict[str, Any]:
    """Everything that the templates of an ablation name."""
    valid = not table.invalid
    # The domain first, what was kept of the rest beside it.
    rows = sorted(table.rows, key=lambda row: row.dataset == table.general)
    alone = [one.name for one in table.variants if one.name != table.reference]
    return {
        "title": f"{table.name.replace('_', ' ')}: {len(table.variants)} variants on {table.corpus.name}",
        "base": str(table.base.get("name", "the base")),
        "reference": table.reference or "",
        "valid": valid,
        "invalid": list(table.invalid),
        "sentences": list(_sentences(table, rows)) if valid else [],
        "failures": [
            f"{one.name}, seed {seed}: {why}" for one in table.variants for seed, why in one.failed.items()
        ],
        "warnings": list(table.warnings),
        "columns": [_heading(row) for row in rows],
        "base_cells": [
            (phrasing.number(row.base.value, row.unit), phrasing.span(row.base, row.unit)) for row in rows
        ],
        "lines": [(one.name, [_cell(row, one.name, valid) for row in rows]) for one in table.variants],
        "against": [(name, [_against(row, name, valid) for row in rows]) for name in alone]
        if table.reference
        else [],
        "costs": [_cost(one) for one in table.variants],
        "planes": list(_planes(table, rows)) if valid else [],
        "interval": INTERVAL,
        "adjustment": ADJUSTMENT,
        "resamples": f"{table.resamples:,}",
        "seed": table.seed,
        "readings": table.readings,
        "versions": ", ".join(f"{name} {version}" for name, version in table.versions.items()),
        "citations": [linked(one) for one in table.citations],
        "sources": [linked_in_markdown(one) for one in table.citations],
        "command": table.command,
        "download": csv_links.address(csv(table)),
    }


def _heading(row: AblationRow) -> tuple[str, str]:
    return _name(row), f"{row.dataset}, n {row.n}" + (f", {row.groups} groups" if row.groups != row.n else "")


def _name(row: AblationRow) -> str:
    return f"{phrasing.probe_name(row.probe)} {phrasing.metric_name(row.metric)}"


def _cell(row: AblationRow, variant: str, valid: bool) -> Cell | None:
    one = row.trials.get(variant)
    if one is None:
        return None
    values = sorted(one.values.values())
    several = len(values) > 1
    seeds = (
        f"{phrasing.number(values[0], row.unit)} to {phrasing.number(values[-1], row.unit)}"
        if several
        else ""
    )
    verdict = row.verdicts.get(variant, "") if valid else ""
    return _changed(one.from_base, verdict, row, phrasing.number(one.mean, row.unit), seeds)


def _against(row: AblationRow, variant: str, valid: bool) -> Cell | None:
    one = row.trials.get(variant)
    if one is None or one.from_reference is None:
        return None
    return _changed(one.from_reference, row.reference_verdicts.get(variant, "") if valid else "", row)


def _changed(change: Estimate, verdict: str, row: AblationRow, value: str = "", seeds: str = "") -> Cell:
    return Cell(
        value,
        seeds,
        phrasing.signed(change.value, row.unit),
        phrasing.span(change, row.unit, sign=True),
        verdict,
        phrasing.MARKS.get(verdict, ""),
    )


def _cost(one: Variant) -> tuple[str, str, str, str, str]:
    """Name, what it says differently, seeds, seconds of training, weights that learn."""
    said = "; ".join(one.said) or "none"
    if not one.seeds:
        return one.name, said, "none", "–", "–"
    seeds = ", ".join(map(str, one.seeds))
    return one.name, said, seeds, phrasing.duration(one.seconds), f"{one.learning:,} of {one.weights:,}"


Told = Sequence[tuple[AblationRow, Estimate, str]]  # a figure, its change, and the verdict on it


def _sentences(table: AblationTable, rows: Sequence[AblationRow]) -> Iterator[str]:
    """What each variant did, and which of them did nothing that this table can show."""
    for one in table.variants:
        if not one.seeds:
            yield f"{one.name}: no complete run; see the failed runs below."
            continue
        told = [(row, row.trials[one.name].from_base, row.verdicts[one.name]) for row in rows]
        yield f"{one.name}: {_moved(told, 'the base')}."
        if table.reference is None or one.name == table.reference:
            continue
        told = [
            (row, change, row.reference_verdicts[one.name])
            for row in rows
            if (change := row.trials[one.name].from_reference) is not None
        ]
        if told:
            yield f"{one.name} compared with {table.reference}: {_moved(told, table.reference)}."


def _moved(told: Told, other: str) -> str:
    judged = [(row, verdict) for row, _, verdict in told if verdict != NO_VERDICT]
    if judged and all(verdict == SAME for _, verdict in judged):
        many = f"any of {len(judged)} metrics" if len(judged) > 1 else _where(judged[0][0])
        return f"no significant difference from {other} in {many}"
    ways = {
        BETTER: "better in",
        WORSE: "worse in",
        SAME: f"no significant difference from {other} in",
        UNKNOWN: "too few groups for a verdict on",
        NO_VERDICT: "not judged:",
    }
    sized = (BETTER, WORSE, NO_VERDICT)
    said = []
    for verdict, start in ways.items():
        named = [
            _where(row) + (f" ({phrasing.signed(change.value, row.unit)})" if verdict in sized else "")
            for row, change, found in told
            if found == verdict
        ]
        if named:
            said.append(f"{start} {', '.join(named)}")
    return "; ".join(said)


def _where(row: AblationRow) -> str:
    return f"{_name(row)} on {row.dataset}"


def _planes(table: AblationTable, rows: Sequence[AblationRow]) -> Iterator[tuple[str, tradeoff_plot.Plane]]:
    """A headline that was measured in the domain and outside of it: every variant is a point."""
    heads = {
        (row.probe, row.dataset == table.general): row for row in rows if row.primary and row.unit == "share"
    }
    for (probe, general), inside in heads.items():
        outside = heads.get((probe, True))
        if general or outside is None:
            continue
        points = [
            (one.name, _upward(inside, one.name), _upward(outside, one.name))
            for one in table.variants
            if one.seeds
        ]
        points = [point for point in points if not math.isnan(point[1].low) and not math.isnan(point[2].low)]
        if points:
            yield _name(inside), tradeoff_plot.plane_of(points)


def _upward(row: AblationRow, variant: str) -> Estimate:
    change = row.trials[variant].from_base
    return change if row.higher_is_better else Estimate(-change.value, -change.high, -change.low, change.p)


def csv(table: AblationTable) -> str:
    """A line for each figure and variant, for whoever wants to compute on."""
    header = ["probe", "set", "figure", "n", "groups", "base", "base_low", "base_high"]
    header += ["variant", "mean", "seeds"]
    for other in ("base", "reference"):
        header += [f"from_{other}{what}" for what in ("", "_low", "_high", "_p")] + [f"verdict_{other}"]
    body: list[list[Any]] = []
    for row in table.rows:
        start = [row.probe, row.dataset, row.metric, row.n, row.groups]
        start += [row.base.value, row.base.low, row.base.high]
        for name, one in row.trials.items():
            seeds = " ".join(f"{seed}:{value!r}" for seed, value in one.values.items())
            line = [*start, name, one.mean, seeds]
            for change, verdicts in (
                (one.from_base, row.verdicts),
                (one.from_reference, row.reference_verdicts),
            ):
                figure = [None] * 4 if change is None else [change.value, change.low, change.high, change.p]
                verdict = verdicts.get(name, "") if not table.invalid else "not valid"
                line += [*figure, verdict]
            body.append(line)
    return csv_links.table(header, body)
