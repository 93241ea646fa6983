"""The table of an ablation as text and numbers, shared by HTML, Markdown and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE
from domainclip.report import csv_links, phrasing, tradeoff_plot
from domainclip.report.ablation_csv import csv
from domainclip.report.ablation_results import (
    ADJUSTMENT,
    INTERVAL,
    AblationRow,
    AblationTable,
    Compared,
    Variant,
    from_base,
    from_reference,
)
from domainclip.report.choice_phrasing import choice_in_words
from domainclip.report.citations import linked, linked_in_markdown


@dataclass(frozen=True)
class Cell:
    """A cell of the table: the result of one variant for one metric."""

    value: str
    seeds: str  # range over the seeds
    difference: str
    span: str  # interval of the difference, corrected as the verdict is
    p: str
    verdict: str
    mark: str


def build(table: AblationTable, file: str = "ablation") -> dict[str, Any]:
    """The variables of the templates of an ablation; `file` is the name of its files."""
    valid = not table.invalid
    # The domain first, then the retention set.
    rows = sorted(table.rows, key=lambda row: row.dataset == table.general)
    alone = [variant.name for variant in table.variants if variant.name != table.reference]
    return {
        "title": _title(table),
        "eyebrow": "Ablation" if len(table.variants) > 1 else "Training runs",
        "base": str(table.base.get("name", "the base")),
        "reference": table.reference or "",
        "valid": valid,
        "invalid": list(table.invalid),
        "choice": choice_in_words(table),
        "file": file,
        "sentences": list(_sentences(table, rows)) if valid else [],
        "failures": [
            f"{variant.name}, seed {seed}: {why}"
            for variant in table.variants
            for seed, why in variant.failed.items()
        ],
        "warnings": list(table.warnings),
        "columns": [_heading(row) for row in rows],
        "base_cells": [
            (phrasing.number(row.base.value, row.unit), phrasing.span(row.base, row.unit)) for row in rows
        ],
        "lines": [
            (variant.name, [_cell(row, variant.name, valid) for row in rows]) for variant in table.variants
        ],
        "against": [(name, [_against(row, name, valid) for row in rows]) for name in alone]
        if table.reference
        else [],
        "costs": [_cost(variant) for variant in table.variants],
        "planes": list(_planes(table, rows)) if valid else [],
        "interval": INTERVAL,
        "adjustment": ADJUSTMENT,
        "resamples": f"{table.resamples:,}",
        "seed": table.seed,
        "split": table.split,
        "readings": table.readings,
        "versions": ", ".join(f"{name} {version}" for name, version in table.versions.items()),
        "citations": [linked(citation) for citation in table.citations],
        "sources": [linked_in_markdown(citation) for citation in table.citations],
        "command": table.command,
        "download": csv_links.address(csv(table)),
    }


def _title(table: AblationTable) -> str:
    name, on = table.name.replace("_", " "), f"on {table.corpus.name}"
    if len(table.variants) > 1:
        return f"{name}: {len(table.variants)} variants {on}"
    (variant,) = table.variants
    runs = "one training run" if len(variant.seeds) == 1 else f"{len(variant.seeds)} training runs"
    return f"{name}: {variant.name} {on}, {runs}"


def _heading(row: AblationRow) -> tuple[str, str]:
    return _name(row), f"{row.dataset}, n {row.n}" + (f", {row.groups} groups" if row.groups != row.n else "")


def _name(row: AblationRow) -> str:
    return f"{phrasing.probe_name(row.probe)} {phrasing.metric_name(row.metric)}"


def _cell(row: AblationRow, variant: str, valid: bool) -> Cell | None:
    trials = row.trials.get(variant)
    if trials is None:
        return None
    values = sorted(trials.values.values())
    several = len(values) > 1
    seeds = (
        f"{phrasing.number(values[0], row.unit)} to {phrasing.number(values[-1], row.unit)}"
        if several
        else ""
    )
    verdict = row.verdicts.get(variant, "") if valid else ""
    return _changed(from_base(trials), verdict, row, phrasing.number(trials.mean, row.unit), seeds)


def _against(row: AblationRow, variant: str, valid: bool) -> Cell | None:
    trials = row.trials.get(variant)
    compared = None if trials is None else from_reference(trials)
    if compared is None:
        return None
    return _changed(compared, row.reference_verdicts.get(variant, "") if valid else "", row)


def _changed(compared: Compared, verdict: str, row: AblationRow, value: str = "", seeds: str = "") -> Cell:
    return Cell(
        value,
        seeds,
        phrasing.signed(compared.shown.value, row.unit),
        phrasing.span(compared.shown, row.unit, sign=True),
        "" if verdict in ("", NO_VERDICT) else _p(compared),
        verdict,
        phrasing.MARKS.get(verdict, ""),
    )


def _p(compared: Compared) -> str:
    return phrasing.p_text(compared.alone.p, compared.adjusted_p, compared.comparisons)


def _cost(variant: Variant) -> tuple[str, str, str, str, str]:
    """Name, overrides, seeds, training time, trained parameters."""
    overrides = "; ".join(variant.overrides) or "none"
    if not variant.seeds:
        return variant.name, overrides, "none", "–", "–"
    seeds = ", ".join(map(str, variant.seeds))
    return (
        variant.name,
        overrides,
        seeds,
        phrasing.duration(variant.seconds),
        f"{variant.learning:,} of {variant.weights:,}",
    )


Changes = Sequence[tuple[AblationRow, Compared, str]]  # metric, difference, verdict


def _sentences(table: AblationTable, rows: Sequence[AblationRow]) -> Iterator[str]:
    """A sentence on each variant against the base, and one against the reference."""
    for variant in table.variants:
        if not variant.seeds:
            yield f"{variant.name}: no complete run; see the failed runs below."
            continue
        changes = [(row, from_base(row.trials[variant.name]), row.verdicts[variant.name]) for row in rows]
        yield f"{variant.name}: {_in_words(changes, 'the base')}."
        if table.reference is None or variant.name == table.reference:
            continue
        changes = [
            (row, compared, row.reference_verdicts[variant.name])
            for row in rows
            if (compared := from_reference(row.trials[variant.name])) is not None
        ]
        if changes:
            yield f"{variant.name} compared with {table.reference}: {_in_words(changes, table.reference)}."


def _in_words(changes: Changes, other: str) -> str:
    judged = [change for change in changes if change[2] != NO_VERDICT]
    if judged and all(verdict == SAME for _, _, verdict in judged):
        # However small a p is alone, the sentence has both, so that interval and words agree.
        row, compared, _ = min(judged, key=lambda change: change[1].alone.p or 0.0)
        if len(judged) == 1:
            return f"no difference from {other} is shown in {_where(row)} ({_p(compared)})"
        smallest = f"smallest p of {_where(row)}: {_p(compared)}"
        return f"no difference from {other} is shown in any of {len(judged)} metrics ({smallest})"
    ways = {
        BETTER: "better in",
        WORSE: "worse in",
        SAME: f"no difference from {other} is shown in",
        UNKNOWN: "too few groups for a verdict on",
        NO_VERDICT: "not judged:",
    }
    clauses = []
    for verdict, start in ways.items():
        named = [
            f"{_where(row)}{_evidence(row, compared, verdict)}"
            for row, compared, row_verdict in changes
            if row_verdict == verdict
        ]
        if named:
            clauses.append(f"{start} {', '.join(named)}")
    return "; ".join(clauses)


def _evidence(row: AblationRow, compared: Compared, verdict: str) -> str:
    size = phrasing.signed(compared.shown.value, row.unit)
    if verdict in (BETTER, WORSE):
        return f" ({size}; {_p(compared)})"
    return {NO_VERDICT: f" ({size})", SAME: f" ({_p(compared)})"}.get(verdict, "")


def _where(row: AblationRow) -> str:
    return f"{_name(row)} on {row.dataset}"


def _planes(table: AblationTable, rows: Sequence[AblationRow]) -> Iterator[tuple[str, tradeoff_plot.Plane]]:
    """A trade-off plot for each headline metric that was also measured on the retention set."""
    heads = {
        (row.probe, row.dataset == table.general): row for row in rows if row.primary and row.unit == "share"
    }
    for (probe, retention), inside in heads.items():
        outside = heads.get((probe, True))
        if retention or outside is None:
            continue
        points = [
            (variant.name, _upward(inside, variant.name), _upward(outside, variant.name))
            for variant in table.variants
            if variant.seeds
        ]
        points = [point for point in points if not math.isnan(point[1].low) and not math.isnan(point[2].low)]
        if points:
            yield _name(inside), tradeoff_plot.plane_of(points)


def _upward(row: AblationRow, variant: str) -> Estimate:
    change = row.trials[variant].from_base
    return change if row.higher_is_better else Estimate(-change.value, -change.high, -change.low, change.p)
