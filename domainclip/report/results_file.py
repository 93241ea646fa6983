"""The format of results.json, version 1, for other programs. Raise the version when a field changes."""

from __future__ import annotations

import math
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


class Strict(BaseModel):
    """Base of the models: no other keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(Strict):
    """A value with its 95 % interval; null where undefined."""

    value: float | None
    low: float | None
    high: float | None


class Difference(Interval):
    """Adapted less base, with the two-sided p of "no difference"."""

    p: float | None


class MetricFields(Strict):
    """The facts of a metric that are the same for every model: `MetricHeader` as JSON."""

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str
    chance: float | None
    primary: bool
    n: int
    groups: int


class Result(Strict):
    """One metric. A metric with a slash, `accuracy/cat`, is a part of the metric before the slash."""

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    n: int
    groups: int
    base: Interval
    adapted: Interval | None  # null for a single model
    difference: Difference | None
    # Added later to version 1; a file without them is valid.
    unit: str = "share"  # "share" of 0 to 1, "rank", …
    verdict: str | None = None  # on the difference, in the words of the report
    primary: bool | None = None  # whether it is the headline metric of its probe
    chance: float | None = None  # the value at chance
    control_fault: str = ""  # why it is not judged, where a control failed: do not rely on the values
    too_few: str = ""  # why there is no interval, in words
    adjusted_p: float | None = None  # p of the difference after correction (Holm) for `comparisons`
    comparisons: int = 1  # differences that are judged together


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
    """The content of results.json, version 1."""

    schema_version: Literal[1] = 1
    run: dict[str, Any]
    base: dict[str, Any]
    corpus: dict[str, Any]
    protocol: dict[str, Any]
    valid: bool  # false after a leak or different preprocessing: do not rely on the values
    warnings: list[str]
    results: list[Result]
    # Added later to version 1; a file without it is valid.
    adapted: dict[str, Any] = {}  # name, weights_sha256 and others of the second model, as `base`

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
            "readings": asdict(context.readings) if context.readings else {},
            **({"external": context.external} if context.external else {}),
        },
        valid=valid,
        warnings=[*context.invalid, *evaluation.warnings, *context.warnings],
        results=[_result(row, valid) for row in evaluation.rows],
    )


def load(file: Path) -> ResultsFile:
    """Read the results of a run.

    Raises: ModelError for a file that is missing, broken or of another version.
    """
    try:
        return ResultsFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}: run `domainclip eval` first") from None
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":  # pydantic would quote the whole file
            raise ModelError(f"{file}: not valid JSON: run `domainclip eval` again") from None
        raise ModelError(f"{file}: {format_validation_error(error, 'results')}") from None


def _corpus(facts: CorpusFacts) -> dict[str, Any]:
    splits = {name: {"items": items, "groups": groups} for name, (items, groups) in facts.splits.items()}
    return {**asdict(facts), "splits": splits}


def _result(row: ComparisonRow, valid: bool) -> Result:
    return Result(
        **metric_fields(row),
        base=interval(row.base),
        adapted=None if row.adapted is None else interval(row.adapted),
        difference=difference(row),
        # An invalid evaluation has no verdicts.
        verdict=row.verdict if valid else None,
        control_fault=row.control_fault,
        too_few=row.too_few,
        adjusted_p=finite(row.adjusted_p),
        comparisons=row.comparisons,
    )


def metric_fields(row: MetricHeader) -> dict[str, Any]:
    """The shared facts of a metric as JSON values."""
    return {name: getattr(row, name) for name in MetricFields.model_fields} | {"chance": finite(row.chance)}


def difference(row: ComparisonRow) -> Difference | None:
    """The difference of a row as JSON; None for a single model."""
    return None if row.difference is None else change(row.difference)


def change(estimate: Estimate) -> Difference:
    """A difference as JSON: null where it is undefined."""
    return Difference(**interval(estimate).model_dump(), p=finite(estimate.p))


def interval(estimate: Estimate) -> Interval:
    """A value with its interval as JSON: null where it is undefined."""
    return Interval(value=finite(estimate.value), low=finite(estimate.low), high=finite(estimate.high))


def finite(value: float | None) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None
