"""Several models in one table: compare.html, compare.md and results_compare.json.

Each model is compared with the first, on the same items. Two models are reported in results.json instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, KEPT, NO_VERDICT, SAME, WORSE, ComparisonRow
from domainclip.report import csv_links, phrasing
from domainclip.report.context import ReportContext
from domainclip.report.results_file import (
    VERSION,
    JudgedDifference,
    MetricFields,
    judged,
    metric_fields,
    to_results,
)
from domainclip.report.strict_file import Interval, Strict, interval


class Value(Strict):
    """The value of one model and its difference from the first model; null for the first itself."""

    model: str
    value: Interval
    difference: JudgedDifference | None
    verdict: str | None


class ComparedResult(MetricFields):
    """One metric of all models, on the same items."""

    values: list[Value]  # in the order of `models`
    not_judged: str  # why no model is judged, where a control failed; else empty


class ComparisonFile(Strict):
    """The content of results_compare.json, version 2."""

    schema_version: Literal[2]
    run: dict[str, Any]
    models: dict[str, dict[str, Any]]  # by label: name, revision, weights_sha256, preprocessing …
    corpus: dict[str, Any]
    protocol: dict[str, Any]
    valid: bool
    warnings: list[str]
    results: list[ComparedResult]


@dataclass(frozen=True)
class Cell:
    """A cell of the table: the value of one model."""

    value: str
    span: str
    difference: str  # empty for the first model
    verdict: str
    mark: str
    best: bool


@dataclass(frozen=True)
class CompareLine:
    """A row of the table: one metric of all models."""

    name: str
    dataset: str
    n: str
    groups: str
    primary: bool
    cells: Sequence[Cell]


def to_file(
    evaluations: Sequence[Evaluation], context: ReportContext, models: Mapping[str, Mapping[str, Any]]
) -> ComparisonFile:
    """The comparison in the format of the file."""
    shared = to_results(evaluations[0], context)
    protocol = dict(shared.protocol)
    protocol["against"] = next(iter(models))
    protocol["probes"] = [_details_by_model(entry, list(models)) for entry in protocol["probes"]]
    protocol["adjustment"] = "Bonferroni over the models of each metric, and over its classes and groups"
    return ComparisonFile(
        schema_version=VERSION,
        run=shared.run,
        models={label: dict(facts) for label, facts in models.items()},
        corpus=shared.corpus,
        protocol=protocol,
        valid=shared.valid,
        warnings=_warnings(evaluations, context),
        results=[_result(rows, list(models), shared.valid) for rows in _rows_by_metric(evaluations)],
    )


def _details_by_model(entry: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The protocol entry of a probe, with the details that depend on the model, such as its thresholds."""
    further = entry.get("further_details", [])
    shared = {key: value for key, value in entry.items() if key not in ("further_details", "adapted_details")}
    changed = {label: details for label, details in zip(labels[1:], further, strict=False) if details}
    first = {key: entry["details"].get(key) for details in changed.values() for key in details}
    return {**shared, "details_by_model": {labels[0]: first, **changed} if changed else {}}


def build(
    evaluations: Sequence[Evaluation], context: ReportContext, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The variables of the templates of a comparison."""
    valid = evaluations[0].valid and not context.invalid
    rows = list(_rows_by_metric(evaluations))
    lines = [_line(metric, valid) for metric in rows]
    return {
        "title": f"{len(models)} models on {context.corpus.name}",
        "models": list(models),
        "about": [(label, _facts(facts)) for label, facts in models.items()],
        "valid": valid,
        "invalid": [*context.invalid, *([] if evaluations[0].valid else evaluations[0].warnings[:1])],
        "sentences": [
            _sentence(metric, list(models), valid)
            for metric in rows
            if metric[0].primary and not metric[0].part
        ],
        "lines": [line for line, metric in zip(lines, rows, strict=True) if not metric[0].part],
        "parts": [line for line, metric in zip(lines, rows, strict=True) if metric[0].part],
        "warnings": _warnings(evaluations, context),
        "readings": str(context.readings) if context.readings else "",
        "readings_warning": context.readings.warning if context.readings else "",
        "external": context.external,
        "trained_on": list(context.trained_on),
        "resamples": f"{evaluations[0].resamples:,}",
        "seed": evaluations[0].seed,
        "command": context.command,
        "download": csv_links.address(_csv(rows, list(models), valid)),
    }


def _rows_by_metric(evaluations: Sequence[Evaluation]) -> list[tuple[ComparisonRow, ...]]:
    """For each metric, its rows: one for each model but the first."""
    return list(zip(*(evaluation.rows for evaluation in evaluations), strict=True))


def _warnings(evaluations: Sequence[Evaluation], context: ReportContext) -> list[str]:
    measured = (warning for evaluation in evaluations for warning in evaluation.warnings)
    return list(dict.fromkeys([*context.invalid, *measured, *context.warnings]))


def _estimates(rows: Sequence[ComparisonRow]) -> list[Estimate]:
    return [rows[0].base, *(row.adapted or row.base for row in rows)]


def _result(rows: Sequence[ComparisonRow], labels: Sequence[str], valid: bool) -> ComparedResult:
    first = rows[0]
    differences = [None, *(judged(row) for row in rows)]
    verdicts = [None, *(row.verdict if valid else None for row in rows)]
    columns = zip(labels, _estimates(rows), differences, verdicts, strict=True)
    return ComparedResult(
        **metric_fields(first),
        values=[
            Value(model=label, value=interval(estimate), difference=change, verdict=verdict)
            for label, estimate, change, verdict in columns
        ],
        not_judged=_fault(rows),
    )


def _fault(rows: Sequence[ComparisonRow]) -> str:
    """The first control that failed for a metric, of any model; empty when none did."""
    return next((row.control_fault for row in rows if row.control_fault), "")


def _line(rows: Sequence[ComparisonRow], valid: bool) -> CompareLine:
    first = rows[0]
    best = _best(rows)
    return CompareLine(
        name=f"{phrasing.probe_name(first.probe)} {phrasing.metric_name(first.metric)}",
        dataset=first.dataset,
        n=str(first.n),
        groups=str(first.groups),
        primary=first.primary,
        cells=[
            _cell(estimate, row, first.unit, estimate.value == best, valid)
            for estimate, row in zip(_estimates(rows), [None, *rows], strict=True)
        ],
    )


def _cell(estimate: Estimate, row: ComparisonRow | None, unit: str, best: bool, valid: bool) -> Cell:
    change = row.difference if row else None
    verdict = (row.verdict or "") if row and valid else ""
    return Cell(
        value=phrasing.number(estimate.value, unit),
        span=phrasing.span(estimate, unit),
        difference=phrasing.signed(change.value, unit) if change else "",
        verdict=verdict,
        mark=phrasing.MARKS.get(verdict, ""),
        best=best,
    )


def _best(rows: Sequence[ComparisonRow]) -> float:
    values = [estimate.value for estimate in _estimates(rows) if not math.isnan(estimate.value)]
    if not values or not rows[0].comparable:
        return math.nan
    return max(values) if rows[0].higher_is_better else min(values)


def _sentence(rows: Sequence[ComparisonRow], labels: Sequence[str], valid: bool) -> str:
    """One sentence about a headline metric of all models, by verdict."""
    first = rows[0]
    name = f"On {first.dataset}, {phrasing.probe_name(first.probe)} {phrasing.metric_name(first.metric)}"
    start = f"{name}: {labels[0]} reaches {phrasing.number(first.base.value, first.unit)}"
    if not valid:
        return f"{start}; not valid, see above."
    clauses = []
    phrases = {
        BETTER: "better",
        WORSE: "worse",
        KEPT: "kept within the margin",
        SAME: "no difference shown",
        NO_VERDICT: "not judged",
    }
    for verdict, text in phrases.items():
        named = [
            f"{label} ({phrasing.number(row.adapted.value, row.unit)})"
            for label, row in zip(labels[1:], rows, strict=True)
            if row.verdict == verdict and row.adapted
        ]
        if named:
            why = f", since {fault}" if verdict == NO_VERDICT and (fault := _fault(rows)) else ""
            clauses.append(f"{text}: {', '.join(named)}{why}")
    return f"{start}; {'; '.join(clauses) or 'too few groups for a verdict on the other models'}."


def _csv(rows: Sequence[Sequence[ComparisonRow]], labels: Sequence[str], valid: bool) -> str:
    header = ["probe", "set", "metric", "part", "n", "groups", "model", "value", "low", "high"]
    body: list[list[Any]] = []
    for members in rows:
        first = members[0]
        start = [first.probe, first.dataset, first.whole, first.part, first.n, first.groups]
        for label, estimate, row in zip(labels, _estimates(members), [None, *members], strict=True):
            change = row.shown if row else None
            apart = [None] * 4 if change is None else [change.value, change.low, change.high, change.p]
            verdict = (row.verdict or "" if valid else "not valid") if row else ""
            body.append([*start, label, estimate.value, estimate.low, estimate.high, *apart, verdict])
    apart_header = ["difference", "difference_low", "difference_high", "p", "verdict"]
    return csv_links.table([*header, *apart_header], body)


def _facts(facts: Mapping[str, Any]) -> str:
    keys = ("name", "revision", "family", "weights_sha256")
    shown = [f"{key.replace('_', ' ')} {str(facts[key])[:16]}" for key in keys if facts.get(key)]
    return ", ".join(shown)
