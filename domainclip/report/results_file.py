"""The format of results.json, version 2, for other programs. Raise the version when a field changes."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from domainclip.errors import ModelError
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate
from domainclip.evaluation.verdicts import ComparisonRow, MetricHeader
from domainclip.registry import format_validation_error
from domainclip.report.context import CorpusFacts, ReportContext
from domainclip.report.diagnostics_file import ErrorsResult, to_errors
from domainclip.report.strict_file import Interval, Strict, finite, interval

VERSION = 2


class Difference(Interval):
    """Adapted less base, with the two-sided p of "no difference"."""

    p: float | None


class JudgedDifference(Difference):
    """A difference with the numbers that its verdict follows from; `results.verdict` has the word."""

    comparisons: int  # differences that are judged together
    adjusted_p: float | None  # p after correction (Bonferroni) for `comparisons`; null for a single one
    simultaneous: Interval | None  # with the interval after correction, which verdict and pages show
    at_most_lost: float | None  # the outer end of the shown interval; null where nothing is judged
    margin: float | None  # the loss that is accepted, of `retention.margin`


class MetricFields(Strict):
    """The facts of a metric that are the same for every model: `MetricHeader` as JSON.

    A metric with a slash, `recall/cat`, is a part of the metric before the slash.
    """

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str  # "share" of 0 to 1, "rank", …
    chance: float | None  # the value of a model without any knowledge
    headline: bool  # whether it is the headline metric of its probe
    items: int
    groups: int


class Result(MetricFields):
    """One metric of one or two models."""

    base: Interval
    adapted: Interval | None  # null for a single model
    difference: JudgedDifference | None
    verdict: (
        str | None
    )  # on the difference, in the words of the report; null where nothing is compared or valid
    not_judged: str  # why it is not judged, where a control failed: do not rely on the values; else empty
    no_interval: str  # why there is no interval; else empty
    by_luck: list[float | None]  # of a metric that noise alone moves: its value by noise alone, by model


class _Open(BaseModel):
    """Base of the forms of the open parts: further keys are allowed, and unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True)


class _Size(_Open):
    items: int
    groups: int


class _Set(_Open):
    """What model cards read of a corpus, or of the retention set."""

    name: str = ""
    set: str = ""
    splits: dict[str, _Size] = {}


class _CorpusForm(_Set):
    retention: _Set | None = None


class _ProbeForm(_Open):
    probe: str
    dataset: str
    primary: str | None = None
    chance: dict[str, float | None] | None = None


class _ProtocolForm(_Open):
    probes: list[_ProbeForm] = []


class _FactsForm(_Open):
    objectives: dict[str, Any] | None = None


class _RunForm(_Open):
    command: str = ""
    facts: _FactsForm | None = None


class _BaseForm(_Open):
    revision: str | None = None


_FORMS: dict[str, type[_Open]] = {
    "run": _RunForm,
    "base": _BaseForm,
    "corpus": _CorpusForm,
    "protocol": _ProtocolForm,
}


class ResultsFile(Strict):
    """The content of results.json, version 2."""

    schema_version: Literal[2]
    run: dict[str, Any]
    base: dict[str, Any]  # name, weights_sha256 and others
    adapted: dict[str, Any]  # the same of the second model; empty for a single one
    corpus: dict[str, Any]
    protocol: dict[str, Any]
    valid: bool  # false after a leak or different preprocessing: do not rely on the values
    warnings: list[str]
    results: list[Result]
    diagnostics: list[ErrorsResult]

    @field_validator("run", "base", "corpus", "protocol")
    @classmethod
    def _readable(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Refuse values in the open parts that a model card could not show."""
        try:
            _FORMS[str(info.field_name)].model_validate(value)
        except ValidationError as error:
            raise ValueError(format_validation_error(error, "")) from None
        return value


def to_results(evaluation: Evaluation, context: ReportContext) -> ResultsFile:
    """The evaluation and its context in the format of the file."""
    corpus = _corpus(context.corpus)
    if context.retention is not None:
        corpus["retention"] = {"set": context.retention_set, **_corpus(context.retention)}
    valid = evaluation.valid and not context.invalid
    run = {"title": context.title, "command": context.command}
    return ResultsFile(
        schema_version=VERSION,
        run=run | (asdict(context.run) if context.run else {}),
        base=dict(context.base),
        adapted=dict(context.adapted),
        corpus=corpus,
        protocol={
            "resamples": evaluation.resamples,
            "seed": evaluation.seed,
            "interval": "95 % of a bootstrap over groups, expanded for few; paired for the difference",
            "fewest_groups": MIN_GROUPS,
            "probes": evaluation.protocol,
            "controls": [asdict(control) for control in evaluation.controls],
            "trained_on": list(context.trained_on),
            "split_usage": asdict(context.readings) if context.readings else {},
            **({"external": context.external} if context.external else {}),
        },
        valid=valid,
        warnings=[*context.invalid, *evaluation.warnings, *context.warnings],
        results=[_result(row, valid) for row in evaluation.rows],
        diagnostics=[to_errors(compared) for compared in evaluation.diagnostics],
    )


def load(file: Path) -> ResultsFile:
    """Read the results of a run.

    Raises: ModelError for a file that is missing, broken or of another version.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}: run `domainclip eval` first") from None
    try:
        _check_version(file, content)
        return ResultsFile.model_validate_json(content)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":  # pydantic would quote the whole file
            raise ModelError(f"{file}: not valid JSON: run `domainclip eval` again") from None
        raise ModelError(f"{file}: {format_validation_error(error, 'results')}") from None


def _check_version(file: Path, content: bytes) -> None:
    """Refuse a file of version 1 with the command that writes it again."""
    try:
        version = dict(json.loads(content)).get("schema_version")
    except (ValueError, TypeError, RecursionError):
        return  # the validation names the fault
    if version == 1:
        folder = shlex.quote(str(file.parent))
        raise ModelError(
            f"{file}: schema_version: 1 is an older format, this version reads {VERSION}: measure the run "
            f"again with `domainclip finetune --resume --run-dir {folder}`"
        )


def _corpus(facts: CorpusFacts) -> dict[str, Any]:
    splits = {name: {"items": items, "groups": groups} for name, (items, groups) in facts.splits.items()}
    return {**asdict(facts), "splits": splits}


def _result(row: ComparisonRow, valid: bool) -> Result:
    return Result(
        **metric_fields(row),
        base=interval(row.base),
        adapted=None if row.adapted is None else interval(row.adapted),
        difference=judged(row),
        # An invalid evaluation has no verdicts.
        verdict=row.verdict if valid else None,
        not_judged=row.control_fault,
        no_interval=row.too_few,
        by_luck=[finite(value) for value in row.by_luck],
    )


def judged(row: ComparisonRow) -> JudgedDifference | None:
    if row.difference is None:
        return None
    return JudgedDifference(
        **change(row.difference).model_dump(),
        comparisons=row.comparisons,
        adjusted_p=finite(row.adjusted_p),
        simultaneous=None if row.simultaneous is None else interval(row.simultaneous),
        at_most_lost=row.at_most_lost,
        margin=row.margin,
    )


def metric_fields(row: MetricHeader) -> dict[str, Any]:
    """The shared facts of a metric as JSON values."""
    return {
        "probe": row.probe,
        "dataset": row.dataset,
        "metric": row.metric,
        "higher_is_better": row.higher_is_better,
        "unit": row.unit,
        "chance": finite(row.chance),
        "headline": row.primary,
        "items": row.n,
        "groups": row.groups,
    }


def change(estimate: Estimate) -> Difference:
    """A difference as JSON: null where it is undefined."""
    return Difference(**interval(estimate).model_dump(), p=finite(estimate.p))
