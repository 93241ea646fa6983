"""The results of an ablation, and the format of ablation.json, for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from domainclip.evaluation.statistics.estimates import Estimate, estimate_of
from domainclip.evaluation.statistics.seeds import Trials
from domainclip.evaluation.verdicts import MetricHeader
from domainclip.report.context import CorpusFacts
from domainclip.report.results_file import Difference, MetricFields, change, metric_fields
from domainclip.report.strict_file import Interval, Strict, finite, interval

INTERVAL = (
    "95 %, Student's t, of the mean over the seeds: the variance over groups, with the same resamples for "
    "all models, plus the variance between seeds, pooled over the variants; differences hold all at once"
)
ADJUSTMENT = "p ≤ 0.05 after Bonferroni's correction over all metrics and variants of the table"


@dataclass(frozen=True)
class Variant:
    """One variant and its training cost; means over its seeds."""

    name: str
    overrides: Sequence[str]  # of the recipe
    seeds: Sequence[int]  # of the complete runs
    failed: Mapping[int, str]  # by seed: the error message
    seconds: float  # of training
    learning: int  # number of trained parameters
    weights: int  # number of all parameters


@dataclass(frozen=True)
class AblationRow(MetricHeader):
    """One metric of all variants, on the same items."""

    base: Estimate
    trials: Mapping[str, Trials]  # by variant
    comparable: bool = True
    verdicts: Mapping[str, str] = field(default_factory=dict)  # against the base, by variant
    reference_verdicts: Mapping[str, str] = field(default_factory=dict)  # against the reference variant


@dataclass(frozen=True)
class Compared:
    """The difference of a variant from the base, or from the reference, alone and among all of the table."""

    alone: Estimate
    shown: Estimate  # its interval and p are corrected for `comparisons`, and agree with the verdict
    comparisons: int  # differences that are judged together

    @property
    def adjusted_p(self) -> float | None:
        """p after correction; None for a difference that is judged alone."""
        return self.shown.p if self.comparisons > 1 else None


def from_base(trials: Trials) -> Compared:
    """The difference from the base."""
    alone = estimate_of(trials.base_change)
    return Compared(alone, trials.from_base, trials.comparisons[0])


def from_reference(trials: Trials) -> Compared | None:
    """The difference from the reference variant; None for that variant itself."""
    if trials.reference_change is None or trials.from_reference is None:
        return None
    return Compared(estimate_of(trials.reference_change), trials.from_reference, trials.comparisons[1])


@dataclass(frozen=True)
class Candidate:
    """One variant as the choice sees it: means over its seeds."""

    variant: str
    mean: float  # of the metric that decides
    gain: float  # over the base; above 0 is better, whatever the metric
    retention_drop: float | None  # loss of a metric on the retention set; None: not measured
    allowed: bool  # whether the loss is small enough


@dataclass(frozen=True)
class Choice:
    """The variant that the validation split chooses, and why."""

    variant: str | None  # None: no variant qualifies, and the base stays
    best: str | None  # the best of those that qualify; `variant` is within one standard error of it
    metric: str  # that decides, probe/set/metric
    max_retention_drop: float | None  # None: forgetting plays no part
    candidates: Sequence[Candidate]
    retention_metric: str = ""  # whose loss is limited, probe/set/metric; empty: none is measured


@dataclass(frozen=True)
class AblationTable:
    """The content of the table and its context."""

    name: str
    split: str
    general: str  # name of the retention set
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
    choice: Choice | None = None  # None: nothing is chosen on these items


class TableDifference(Difference):
    """A difference alone, and with the numbers that its verdict follows from."""

    comparisons: int  # differences that are judged together: all variants and metrics of the table
    adjusted_p: float | None  # p after correction (Bonferroni) for `comparisons`; null for a single one
    simultaneous: Interval | None  # with the interval after correction, which verdict and pages show


class VariantResult(Strict):
    """The result of one variant; `seeds` has the value of each seed."""

    variant: str
    mean: float | None
    seeds: dict[str, float | None]
    difference: TableDifference
    verdict: str | None
    from_reference: TableDifference | None
    reference_verdict: str | None


class AblationResult(MetricFields):
    """One metric."""

    base: Interval
    variants: list[VariantResult]


class AblationFile(Strict):
    """The content of ablation.json, version 1."""

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
    choice: dict[str, Any] | None  # the variant that the validation split chooses; null: none is chosen here


def to_file(table: AblationTable) -> AblationFile:
    """The table in the format of the file."""
    valid = not table.invalid
    return AblationFile(
        name=table.name,
        command=table.command,
        base=dict(table.base),
        corpus={key: getattr(table.corpus, key) for key in ("name", "card", "fingerprint")},
        reference=table.reference,
        variants=[
            {
                "name": variant.name,
                "overrides": list(variant.overrides),
                "seeds": list(variant.seeds),
                "failed": {str(seed): why for seed, why in variant.failed.items()},
                "training_seconds": variant.seconds if variant.seeds else None,
                "weights_that_learn": variant.learning if variant.seeds else None,
                "weights": variant.weights if variant.seeds else None,
            }
            for variant in table.variants
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
        choice=asdict(table.choice) if table.choice is not None and valid else None,
    )


def _difference(compared: Compared) -> TableDifference:
    return TableDifference(
        **change(compared.alone).model_dump(),
        comparisons=compared.comparisons,
        adjusted_p=finite(compared.adjusted_p),
        simultaneous=interval(compared.shown) if compared.comparisons > 1 else None,
    )


def _result(row: AblationRow, valid: bool) -> AblationResult:
    return AblationResult(
        **metric_fields(row),
        base=interval(row.base),
        variants=[
            VariantResult(
                variant=name,
                mean=finite(trials.mean),
                seeds={str(seed): finite(value) for seed, value in trials.values.items()},
                difference=_difference(from_base(trials)),
                verdict=row.verdicts.get(name) if valid else None,
                from_reference=_difference(other) if (other := from_reference(trials)) else None,
                reference_verdict=row.reference_verdicts.get(name) if valid else None,
            )
            for name, trials in row.trials.items()
        ],
    )
