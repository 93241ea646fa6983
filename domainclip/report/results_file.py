"""results.json, version 1: what other programs read. Raise the version when a field changes."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from domainclip.errors import ModelError
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate
from domainclip.evaluation.verdicts import ComparisonRow, MetricHeader
from domainclip.registry import format_validation_error
from domainclip.report.context import CorpusFacts, ReportContext


class Strict(BaseModel):
    """No other keys, no NaN."""

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
    """What the tables of several models say of a figure, whoever reached what."""

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
    """One figure. A metric with a slash, `accuracy/cat`, is a part of the one before it."""

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    n: int
    groups: int
    base: Interval
    adapted: Interval | None  # null when a single model was measured
    difference: Difference | None
    # Added to version 1; a file from before them is still read.
    unit: str = "share"  # "share" of 0 to 1, "rank", …
    verdict: str | None = None  # what may be said of the difference, in the words of the report
    primary: bool | None = None  # whether it headlines its probe
    chance: float | None = None  # what a model that knows nothing reaches


class ResultsFile(Strict):
    """The whole file."""

    schema_version: Literal[1] = 1
    run: dict[str, Any]
    base: dict[str, Any]
    corpus: dict[str, Any]
    protocol: dict[str, Any]
    valid: bool  # false when a leak or differing preparation was found: believe no figure then
    warnings: list[str]
    results: list[Result]


def to_results(evaluation: Evaluation, context: ReportContext) -> ResultsFile:
    """The evaluation and its circumstances as the file has them."""
    corpus = _corpus(context.corpus)
    if context.retention is not None:
        corpus["retention"] = {"set": context.retention_set, **_corpus(context.retention)}
    valid = evaluation.valid and not context.invalid
    run = {"title": context.title, "command": context.command}
    return ResultsFile(
        run=run | (asdict(context.run) if context.run else {}),
        base=dict(context.base),
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
        },
        valid=valid,
        warnings=[*context.invalid, *evaluation.warnings, *context.warnings],
        results=[_result(row, valid) for row in evaluation.rows],
    )


def load(file: Path) -> ResultsFile:
    """The results that a run left.

    Raises: ModelError for a file that is missing, broken or of another version.
    """
    try:
        return ResultsFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}: run `domainclip eval` first") from None
    except ValidationError as error:
        raise ModelError(f"{file}: {format_validation_error(error, 'results')}") from None


def _corpus(facts: CorpusFacts) -> dict[str, Any]:
    splits = {name: {"items": items, "groups": groups} for name, (items, groups) in facts.splits.items()}
    return {**asdict(facts), "splits": splits}


def _result(row: ComparisonRow, valid: bool) -> Result:
    return Result(
        **heading(row),
        base=interval(row.base),
        adapted=None if row.adapted is None else interval(row.adapted),
        difference=difference(row),
        # What is not valid is neither better nor worse.
        verdict=row.verdict if valid else None,
    )


def heading(row: MetricHeader) -> dict[str, Any]:
    """What is said of a figure, as JSON has it."""
    return {name: getattr(row, name) for name in MetricFields.model_fields} | {"chance": finite(row.chance)}


def difference(row: ComparisonRow) -> Difference | None:
    """The change of a row, when two models were measured."""
    return None if row.difference is None else change(row.difference)


def change(figure: Estimate) -> Difference:
    """The figure of a difference as JSON has it."""
    return Difference(**interval(figure).model_dump(), p=finite(figure.p))


def interval(figure: Estimate) -> Interval:
    """The figure as JSON has it: null where it does not exist."""
    return Interval(value=finite(figure.value), low=finite(figure.low), high=finite(figure.high))


def finite(value: float | None) -> float | None:
    """The number as JSON has it, which knows no NaN."""
    return value if value is not None and math.isfinite(value) else None
