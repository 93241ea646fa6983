"""Several models in one table: compare.html, compare.md and results_compare.json.

Each model stands against the first, on the same items. results.json stays as it is for two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, WORSE, ComparisonRow
from domainclip.report import csv_links, phrasing
from domainclip.report.context import ReportContext
from domainclip.report.results_file import (
    Difference,
    Interval,
    MetricFields,
    Strict,
    difference,
    heading,
    interval,
    to_results,
)


class Value(Strict):
    """What one model reaches, and its difference from the first; null for the first itself."""

    model: str
    value: Interval
    difference: Difference | None
    verdict: str | None


class ComparedResult(MetricFields):
    """One figure of all models, on the same items."""

    values: list[Value]  # in the order of `models`


class ComparisonFile(Strict):
    """The whole of results_compare.json, version 1."""

    schema_version: Literal[1] = 1
    run: dict[str, Any]
    models: dict[str, dict[str, Any]]  # by label: name, revision, weights_sha256, preprocessing …
    corpus: dict[str, Any]
    protocol: dict[str, Any]
    valid: bool
    warnings: list[str]
    results: list[ComparedResult]


@dataclass(frozen=True)
class Cell:
    """A value in the table."""

    value: str
    span: str
    difference: str  # empty for the first model
    verdict: str
    mark: str
    best: bool


@dataclass(frozen=True)
class CompareLine:
    """A row of the table: one figure of all models."""

    name: str
    dataset: str
    n: str
    groups: str
    primary: bool
    cells: Sequence[Cell]


def to_file(
    found: Sequence[Evaluation], context: ReportContext, models: Mapping[str, Mapping[str, Any]]
) -> ComparisonFile:
    """The comparison as the file has it."""
    shared = to_results(found[0], context)
    protocol = dict(shared.protocol)
    protocol["against"] = next(iter(models))
    protocol["adjustment"] = "Holm over the models of each metric, and over its classes and groups"
    return ComparisonFile(
        run=shared.run,
        models={label: dict(facts) for label, facts in models.items()},
        corpus=shared.corpus,
        protocol=protocol,
        valid=shared.valid,
        warnings=_warnings(found, context),
        results=[_result(rows, list(models), shared.valid) for rows in _beside(found)],
    )


def build(
    found: Sequence[Evaluation], context: ReportContext, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that the templates of a comparison name."""
    valid = found[0].valid and not context.invalid
    rows = list(_beside(found))
    lines = [_line(one, valid) for one in rows]
    return {
        "title": f"{len(models)} models on {context.corpus.name}",
        "models": list(models),
        "about": [(label, _facts(facts)) for label, facts in models.items()],
        "valid": valid,
        "invalid": [*context.invalid, *([] if found[0].valid else found[0].warnings[:1])],
        "sentences": [
            _sentence(one, list(models), valid) for one in rows if one[0].primary and not one[0].part
        ],
        "lines": [line for line, one in zip(lines, rows, strict=True) if not one[0].part],
        "parts": [line for line, one in zip(lines, rows, strict=True) if one[0].part],
        "warnings": _warnings(found, context),
        "readings": str(context.readings) if context.readings else "",
        "trained_on": list(context.trained_on),
        "resamples": f"{found[0].resamples:,}",
        "seed": found[0].seed,
        "command": context.command,
        "download": csv_links.address(_csv(rows, list(models), valid)),
    }


def _beside(found: Sequence[Evaluation]) -> list[tuple[ComparisonRow, ...]]:
    """The rows of one figure, one for each model but the first."""
    return list(zip(*(evaluation.rows for evaluation in found), strict=True))


def _warnings(found: Sequence[Evaluation], context: ReportContext) -> list[str]:
    said = [*context.invalid, *(text for one in found for text in one.warnings), *context.warnings]
    return list(dict.fromkeys(said))


def _figures(rows: Sequence[ComparisonRow]) -> list[Estimate]:
    return [rows[0].base, *(row.adapted or row.base for row in rows)]


def _result(rows: Sequence[ComparisonRow], labels: Sequence[str], valid: bool) -> ComparedResult:
    first = rows[0]
    changes = [None, *(difference(row) for row in rows)]
    verdicts = [None, *(row.verdict if valid else None for row in rows)]
    return ComparedResult(
        **heading(first),
        values=[
            Value(model=label, value=interval(figure), difference=change, verdict=verdict)
            for label, figure, change, verdict in zip(labels, _figures(rows), changes, verdicts, strict=True)
        ],
    )


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
            _cell(figure, row, first.unit, figure.value == best, valid)
            for figure, row in zip(_figures(rows), [None, *rows], strict=True)
        ],
    )


def _cell(figure: Estimate, row: ComparisonRow | None, unit: str, best: bool, valid: bool) -> Cell:
    change = row.difference if row else None
    verdict = (row.verdict or "") if row and valid else ""
    return Cell(
        value=phrasing.number(figure.value, unit),
        span=phrasing.span(figure, unit),
        difference=phrasing.signed(change.value, unit) if change else "",
        verdict=verdict,
        mark=phrasing.MARKS.get(verdict, ""),
        best=best,
    )


def _best(rows: Sequence[ComparisonRow]) -> float:
    values = [figure.value for figure in _figures(rows) if not math.isnan(figure.value)]
    if not values or not rows[0].comparable:
        return math.nan
    return max(values) if rows[0].higher_is_better else min(values)


def _sentence(rows: Sequence[ComparisonRow], labels: Sequence[str], valid: bool) -> str:
    """What a headline figure says of all models, no more than the intervals allow."""
    first = rows[0]
    name = f"On {first.dataset}, {phrasing.probe_name(first.probe)} {phrasing.metric_name(first.metric)}"
    start = f"{name}: {labels[0]} reaches {phrasing.number(first.base.value, first.unit)}"
    if not valid:
        return f"{start}; not valid, see above."
    said = []
    words_of = {
        BETTER: "better",
        WORSE: "worse",
        SAME: "no difference shown",
        NO_VERDICT: "not judged",
    }
    for verdict, text in words_of.items():
        named = [
            f"{label} ({phrasing.number(row.adapted.value, row.unit)})"
            for label, row in zip(labels[1:], rows, strict=True)
            if row.verdict == verdict and row.adapted
        ]
        if named:
            said.append(f"{text}: {', '.join(named)}")
    return f"{start}; {'; '.join(said) or 'too few groups for a verdict on the other models'}."


def _csv(rows: Sequence[Sequence[ComparisonRow]], labels: Sequence[str], valid: bool) -> str:
    header = ["probe", "set", "figure", "part", "n", "groups", "model", "value", "low", "high"]
    body: list[list[Any]] = []
    for one in rows:
        first = one[0]
        start = [first.probe, first.dataset, first.whole, first.part, first.n, first.groups]
        for label, figure, row in zip(labels, _figures(one), [None, *one], strict=True):
            change = row.difference if row else None
            apart = [None] * 4 if change is None else [change.value, change.low, change.high, change.p]
            verdict = (row.verdict or "" if valid else "not valid") if row else ""
            body.append([*start, label, figure.value, figure.low, figure.high, *apart, verdict])
    apart_header = ["difference", "difference_low", "difference_high", "p", "verdict"]
    return csv_links.table([*header, *apart_header], body)


def _facts(facts: Mapping[str, Any]) -> str:
    kept = ("name", "revision", "family", "weights_sha256")
    told = [f"{key.replace('_', ' ')} {str(facts[key])[:16]}" for key in kept if facts.get(key)]
    return ", ".join(told)
