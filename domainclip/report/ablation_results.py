"""Variants of one recipe in one table: what was found, and ablation.json, which other programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.statistics.seeds import Trials
from domainclip.evaluation.verdicts import MetricHeader
from domainclip.report.context import CorpusFacts
from domainclip.report.results_file import (
    Difference,
    Interval,
    MetricFields,
    Strict,
    change,
    finite,
    heading,
    interval,
)

INTERVAL = (
    "95 %, Student's t, of the mean over the seeds: the variance of a bootstrap over groups, with the same "
    "resamples for all models, plus the variance between seeds, pooled over the variants"
)
ADJUSTMENT = "p ≤ 0.05 after Holm's adjustment over all metrics and variants of the table"


@dataclass(frozen=True)
class Variant:
    """One way to train, and what it took; means over its seeds."""

    name: str
    said: Sequence[str]  # what its recipe says differently
    seeds: Sequence[int]  # of the runs that are complete
    failed: Mapping[int, str]  # by seed: the one line of its fault
    seconds: float  # of training
    learning: int  # weights that learned,
    weights: int  # of so many


@dataclass(frozen=True)
class AblationRow(MetricHeader):
    """One figure of all variants, on the same items."""

    base: Estimate
    trials: Mapping[str, Trials]  # by variant
    comparable: bool = True
    verdicts: Mapping[str, str] = field(default_factory=dict)  # against the base, by variant
    reference_verdicts: Mapping[str, str] = field(default_factory=dict)  # against the reference variant


@dataclass(frozen=True)
class AblationTable:
    """All that is written."""

    name: str
    split: str
    general: str  # the set that shows what was forgotten
    base: Mapping[str, Any]
    corpus: CorpusFacts
    variants: Sequence[Variant]
    rows: Sequence[AblationRow]
    reference: str | None
    resamples: int
    seed: int
    command: str
    warnings: Sequence[str] = ()
    invalid: Sequence[str] = ()
    readings: str = ""
    citations: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


class VariantResult(Strict):
    """What one variant reaches; `seeds` are the values of each."""

    variant: str
    mean: float | None
    seeds: dict[str, float | None]
    difference: Difference
    verdict: str | None
    from_reference: Difference | None
    reference_verdict: str | None


class AblationResult(MetricFields):
    """One figure."""

    base: Interval
    variants: list[VariantResult]


class AblationFile(Strict):
    """The whole of ablation.json, version 1."""

    schema_version: Literal[1] = 1
    name: str
    command: str
    base: dict[str, Any]
    corpus: dict[str, Any]
    reference: str | None
    variants: list[dict[str, Any]]
    protocol: dict[str, Any]
    valid: bool
    warnings: list[str]
    results: list[AblationResult]


def to_file(table: AblationTable) -> AblationFile:
    """The table as the file has it."""
    valid = not table.invalid
    return AblationFile(
        name=table.name,
        command=table.command,
        base=dict(table.base),
        corpus={key: getattr(table.corpus, key) for key in ("name", "card", "fingerprint")},
        reference=table.reference,
        variants=[
            {
                "name": one.name,
                "said": list(one.said),
                "seeds": list(one.seeds),
                "failed": {str(seed): why for seed, why in one.failed.items()},
                "training_seconds": one.seconds if one.seeds else None,
                "weights_that_learn": one.learning if one.seeds else None,
                "weights": one.weights if one.seeds else None,
            }
            for one in table.variants
        ],
        protocol={
            "split": table.split,
            "general": table.general,
            "resamples": table.resamples,
            "seed": table.seed,
            "interval": INTERVAL,
            "adjustment": ADJUSTMENT,
            "versions": dict(table.versions),
            "readings": table.readings,
            "citations": list(table.citations),
        },
        valid=valid,
        warnings=[*table.invalid, *table.warnings],
        results=[_result(row, valid) for row in table.rows],
    )


def _result(row: AblationRow, valid: bool) -> AblationResult:
    return AblationResult(
        **heading(row),
        base=interval(row.base),
        variants=[
            VariantResult(
                variant=name,
                mean=finite(one.mean),
                seeds={str(seed): finite(value) for seed, value in one.values.items()},
                difference=change(one.from_base),
                verdict=row.verdicts.get(name) if valid else None,
                from_reference=change(one.from_reference) if one.from_reference else None,
                reference_verdict=row.reference_verdicts.get(name) if valid else None,
            )
            for name, one in row.trials.items()
        ],
    )
