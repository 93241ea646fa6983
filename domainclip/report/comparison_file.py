"""The format of results_compare.json: several models, each compared with the first on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
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
        warnings=warnings(evaluations, context),
        results=[_result(rows, list(models), shared.valid) for rows in rows_by_metric(evaluations)],
    )


def _details_by_model(entry: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The protocol entry of a probe, with the details that depend on the model, such as its thresholds."""
    further = entry.get("further_details", [])
    shared = {key: value for key, value in entry.items() if key not in ("further_details", "adapted_details")}
    changed = {label: details for label, details in zip(labels[1:], further, strict=False) if details}
    first = {key: entry["details"].get(key) for details in changed.values() for key in details}
    return {**shared, "details_by_model": {labels[0]: first, **changed} if changed else {}}


def rows_by_metric(evaluations: Sequence[Evaluation]) -> list[tuple[ComparisonRow, ...]]:
    """For each metric, its rows: one for each model but the first."""
    return list(zip(*(evaluation.rows for evaluation in evaluations), strict=True))


def warnings(evaluations: Sequence[Evaluation], context: ReportContext) -> list[str]:
    """The warnings of all models and of the context, each once."""
    measured = (warning for evaluation in evaluations for warning in evaluation.warnings)
    return list(dict.fromkeys([*context.invalid, *measured, *context.warnings]))


def estimates(rows: Sequence[ComparisonRow]) -> list[Estimate]:
    """The value of every model for one metric."""
    return [rows[0].base, *(row.adapted or row.base for row in rows)]


def _result(rows: Sequence[ComparisonRow], labels: Sequence[str], valid: bool) -> ComparedResult:
    first = rows[0]
    differences = [None, *(judged(row) for row in rows)]
    verdicts = [None, *(row.verdict if valid else None for row in rows)]
    columns = zip(labels, estimates(rows), differences, verdicts, strict=True)
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
