"""Evaluation of one or several models on the same items: every probe on every set, paired by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.data.interfaces import Encoder
from domainclip.distributed.phases import phase
from domainclip.errors import RecipeError
from domainclip.evaluation import row_warnings, verdicts
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.biased_metrics import described
from domainclip.evaluation.controls import NullControl, control_fault, not_judged, null_control
from domainclip.evaluation.diagnostics import Diagnostics
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.probe_runs import run_probes
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics.estimates import MIN_GROUPS
from domainclip.evaluation.verdicts import ComparisonRow, add_verdicts_together

_MODELS = ("the base", "the adapted model")  # as reports call the first and the second


@dataclass(frozen=True)
class ComparedDiagnostics:
    """Where each model errs by one probe on one set."""

    probe: str
    dataset: str
    models: Sequence[Diagnostics]  # as the rows: the base first, then the adapted model if there is one


@dataclass(frozen=True)
class Evaluation:
    """All results of a comparison; equal on every process."""

    rows: list[ComparisonRow]
    protocol: list[dict[str, Any]]  # one entry for each probe and set, JSON
    warnings: list[str]
    valid: bool
    resamples: int
    seed: int
    controls: list[NullControl] = field(default_factory=list)
    diagnostics: list[ComparedDiagnostics] = field(default_factory=list)


def evaluate_pair(base: Encoder, adapted: Encoder | None, protocol: Protocol) -> Evaluation:
    """Hop 8: run every probe on every reported set, for both models on the same items; `adapted` may be None.

    Raises: DataError when no image of a set can be read, RecipeError when no probe can measure anything.
    """
    encoders = [base] if adapted is None else [base, adapted]
    return compare_models(
        encoders,
        protocol.reported,
        protocol.probes,
        resamples=protocol.bootstrap_samples,
        seed=protocol.seed,
        margin=protocol.margin,
    )[0]


@phase("measuring and comparing models")
def compare_models(
    encoders: Sequence[Encoder],
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    *,
    resamples: int = 2000,
    seed: int = 0,
    margin: float | None = None,
) -> list[Evaluation]:
    """Compare each further model with the first, on the same items; a single model is evaluated alone.

    `margin` is the loss that is accepted in a share on the retention set.

    Raises: DataError when no image of a set can be read, RecipeError when no probe can measure anything.
    """
    sizes = _different_sizes(encoders)
    warnings = [] if sizes else _different_preprocessing(encoders)
    valid = not warnings
    warnings += sizes
    against = range(1, len(encoders)) if len(encoders) > 1 else range(1)
    tables: list[list[ComparisonRow]] = [[] for _ in against]
    controls: list[list[NullControl]] = [[] for _ in against]
    diagnostics: list[list[ComparedDiagnostics]] = [[] for _ in against]
    protocol: list[dict[str, Any]] = []
    for evaluation in run_probes(encoders, sets, probes):
        first = evaluation.results[0]
        names, left_out = verdicts.are_comparable(evaluation.results)
        warnings += [f"{first.probe} on {first.dataset}: {reason}" for reason in left_out]
        for table, table_controls, errors, other in zip(tables, controls, diagnostics, against, strict=True):
            pair = [first] + ([evaluation.results[other]] if other else [])
            known = [result.diagnostics for result in pair if result.diagnostics is not None]
            if len(known) == len(pair):
                errors.append(ComparedDiagnostics(first.probe, first.dataset, known))
            rows = [described(verdicts.compare_metric(pair, name, resamples, seed), pair) for name in names]
            warnings += [*evaluation.warnings, *row_warnings.interval_warnings(rows, evaluation.groups)]
            # One headline metric a set: the swaps take as long as a hundred metrics.
            if other and all(control.dataset != first.dataset for control in table_controls):
                table_controls += [
                    null_control(pair, row, seed) for row in rows if row.primary and _enough(row)
                ]
            fault = control_fault(dict(zip(_MODELS, pair, strict=False)), resamples, seed)
            rows = _without_judgement(rows, fault, table_controls)
            table += rows
            warnings += row_warnings.control_warnings(rows)
        protocol.append(_with_reasons(evaluation.protocol, left_out if not names else []))
    if not any(tables):
        raise RecipeError(f"nothing can be measured: {_reasons(protocol)}")
    warnings += verdicts.underpowered_families(tables, resamples)
    judged = add_verdicts_together(tables, margin)
    warnings += [warning for rows in judged for warning in row_warnings.margin_warnings(rows)]
    distinct = list(dict.fromkeys(warnings))
    return [
        Evaluation(rows, protocol, distinct, valid, resamples, seed, table_controls, errors)
        for rows, table_controls, errors in zip(judged, controls, diagnostics, strict=True)
    ]


def _with_reasons(entry: dict[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """The protocol entry of a probe with the reasons why all of its metrics are left out, if they are."""
    if not left_out:
        return entry
    return {**entry, "details": {**entry["details"], "not_measured": "; ".join(left_out)}}


def _reasons(protocol: Sequence[dict[str, Any]]) -> str:
    """Why no probe measured anything."""
    reasons = [
        f"{entry['probe']} on {entry['dataset']}: {entry['details'].get('not_measured', 'no metrics')}"
        for entry in protocol
    ]
    return "; ".join(reasons) or "name at least one probe and one set"


def _without_judgement(
    rows: Sequence[ComparisonRow], fault: str, controls: Sequence[NullControl]
) -> list[ComparisonRow]:
    """The rows of a probe: none is judged when a control failed, nor one with a failed null control."""
    faults = {(control.probe, control.dataset, control.metric): control.fault for control in controls}
    return [
        not_judged([row], fault or faults.get((row.probe, row.dataset, row.whole), ""))[0] for row in rows
    ]


def _enough(row: ComparisonRow) -> bool:
    return row.comparable and row.groups >= MIN_GROUPS


def _different_preprocessing(encoders: Sequence[Encoder]) -> list[str]:
    """A warning if the models preprocess images differently: then their metrics are not comparable."""
    fingerprints = {encoder.preprocessing for encoder in encoders if isinstance(encoder, CachedEncoder)}
    if len(fingerprints) < 2:
        return []
    return ["base and adapted model preprocess images differently: their metrics must not be compared"]


def _different_sizes(encoders: Sequence[Encoder]) -> list[str]:
    """A warning if the models read the same part of an image at different sizes, and all else is equal."""
    cached = [encoder for encoder in encoders if isinstance(encoder, CachedEncoder)]
    sizes = list(dict.fromkeys(encoder.model.image_size for encoder in cached))
    alike = {(encoder.model.image_preprocessor.but_size, encoder.model.frames) for encoder in cached}
    if len(alike) != 1 or len(sizes) < 2 or len(sizes) != len({encoder.preprocessing for encoder in cached}):
        return []
    named = ", ".join(f"{height} by {width}" for height, width in sizes)
    return [f"the models read images of {named} pixels: their differences include that of the size"]
