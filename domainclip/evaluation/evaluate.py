"""Evaluation of one or several models on the same items: every probe on every set, paired by item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset

from domainclip.data.interfaces import Encoder, UnreadableImages
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation import verdicts
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics import controls as statistics_controls
from domainclip.evaluation.statistics.estimates import MIN_GROUPS
from domainclip.evaluation.verdicts import ComparisonRow, add_verdicts, add_verdicts_together

# Swaps of a null control: enough to tell 5 % from 15 %; a fifth of that where one metric takes seconds.
_SWAPS, _MIN_SWAPS, _RESAMPLES = 100, 20, 200
_MAX_SCORES = 400_000  # number of scores, summed over all swaps


@dataclass(frozen=True)
class NullControl:
    """False positives of the procedure where no difference exists, for one headline metric."""

    probe: str
    dataset: str
    metric: str
    itself: str  # the verdict on the base against itself
    share: float  # of the random swaps of the models, by group, for which a difference was claimed
    swaps: int


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


@dataclass(frozen=True)
class ModelEvaluation:
    """The results of one probe on one set, for every model."""

    results: list[ProbeResult]
    protocol: dict[str, Any]
    warnings: list[str]
    groups: int  # number of groups in the whole set


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
    )[0]


def compare_models(
    encoders: Sequence[Encoder],
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Evaluation]:
    """Compare each further model with the first, on the same items; a single model is evaluated alone.

    Raises: DataError when no image of a set can be read, RecipeError when no probe can measure anything.
    """
    warnings = _different_preprocessing(encoders)
    valid = not warnings
    against = range(1, len(encoders)) if len(encoders) > 1 else range(1)
    tables: list[list[ComparisonRow]] = [[] for _ in against]
    controls: list[list[NullControl]] = [[] for _ in against]
    protocol: list[dict[str, Any]] = []
    for evaluation in run_probes(encoders, sets, probes):
        first = evaluation.results[0]
        names, left_out = verdicts.are_comparable(evaluation.results)
        warnings += [f"{first.probe} on {first.dataset}: {reason}" for reason in left_out]
        for table, table_controls, other in zip(tables, controls, against, strict=True):
            pair = [first] + ([evaluation.results[other]] if other else [])
            rows = [verdicts.compare_metric(pair, name, resamples, seed) for name in names]
            warnings += [*evaluation.warnings, *verdicts.interval_warnings(rows, evaluation.groups)]
            table += rows
            # One headline metric a set: the swaps take as long as a hundred metrics.
            if other and all(control.dataset != first.dataset for control in table_controls):
                table_controls += [_control(pair, row, seed) for row in rows if row.primary and _enough(row)]
        protocol.append(_with_reasons(evaluation.protocol, left_out if not names else []))
    if not any(tables):
        raise RecipeError(f"nothing can be measured: {_reasons(protocol)}")
    warnings += verdicts.underpowered_families(tables, resamples)
    distinct = list(dict.fromkeys(warnings))
    return [
        Evaluation(rows, protocol, distinct, valid, resamples, seed, table_controls)
        for rows, table_controls in zip(add_verdicts_together(tables), controls, strict=True)
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


def _enough(row: ComparisonRow) -> bool:
    return row.comparable and row.groups >= MIN_GROUPS


def _control(pair: Sequence[ProbeResult], row: ComparisonRow, seed: int) -> NullControl:
    """The procedure where no difference exists: the base against itself, and models swapped at random."""
    base, adapted = (next(m for m in result.metrics if m.name == row.metric) for result in pair)
    with_itself = verdicts.compare_metric([pair[0], pair[0]], row.metric, _RESAMPLES, seed)
    itself = add_verdicts([with_itself])[0].verdict
    swaps = min(_SWAPS, max(_MIN_SWAPS, _MAX_SCORES // max(1, base.scores.size)))
    share = statistics_controls.false_positive_rate(
        base.aggregate, base.scores, adapted.scores, base.groups, swaps, _RESAMPLES, seed
    )
    return NullControl(row.probe, row.dataset, row.metric, str(itself), share, swaps)


def run_probes(
    encoders: Sequence[Encoder], sets: Sequence[EvaluationSet], probes: Mapping[str, Probe]
) -> Iterator[ModelEvaluation]:
    """Run every probe on every set and yield its scores by item, before any comparison.

    Raises: DataError when no image of a set can be read.
    """
    for data in sets:
        readable, lost = _readable_items(encoders, data)
        warnings = []
        if lost:
            warnings.append(
                f"{data.name}: {lost} of {len(data.items)} images cannot be read; left out for both models"
            )
        for probe in probes.values():
            results, readable, left_out = _run_probe(encoders, readable, probe)
            warnings += left_out
            # A probe may warn of one model only, depending on its embeddings.
            of_models = [text for result in results for text in result.warnings]
            entry = _protocol_entry(probe, results, readable, lost)
            groups = len(set(readable.items["group"][:]))
            yield ModelEvaluation(results, entry, [*warnings, *of_models], groups)


def _run_probe(
    encoders: Sequence[Encoder], data: EvaluationSet, probe: Probe
) -> tuple[list[ProbeResult], EvaluationSet, list[str]]:
    """The results of one probe for every model, the set that it measured, and warnings.

    The splits that a probe fits on are encoded only when the probe reads them; their unreadable items are
    removed from the returned set.
    """
    try:
        return [probe(encoder, data) for encoder in encoders], data, []
    except UnreadableImages:
        cached = [encoder for encoder in encoders if isinstance(encoder, CachedEncoder)]
        fitted = {"train": data.train, "validation": data.validation}
        splits = {name: items for name, items in fitted.items() if items is not None}
        usable = {name: encode_images(cached, items) for name, items in splits.items()}
        lost = {name: len(items) - len(usable[name]) for name, items in splits.items()}
        if not any(lost.values()):
            raise
        data = replace(data, train=usable.get("train"), validation=usable.get("validation"))
        warnings = [
            f"{data.name}: {n} images of its {name} split cannot be read; no probe is fitted on them"
            for name, n in lost.items()
            if n
        ]
        return [probe(encoder, data) for encoder in encoders], data, warnings


def _different_preprocessing(encoders: Sequence[Encoder]) -> list[str]:
    """A warning if the models preprocess images differently: then their metrics are not comparable."""
    fingerprints = {encoder.preprocessing for encoder in encoders if isinstance(encoder, CachedEncoder)}
    if len(fingerprints) < 2:
        return []
    return ["base and adapted model preprocess images differently: their metrics must not be compared"]


def _readable_items(encoders: Sequence[Encoder], data: EvaluationSet) -> tuple[EvaluationSet, int]:
    """The set with its readable items in order of their ids, and the number of unreadable items.

    Raises: DataError when no image can be read.
    """
    items = sort_items(data)
    cached = [encoder for encoder in encoders if isinstance(encoder, CachedEncoder)]
    readable = encode_images(cached, items) if cached else items
    if not len(readable):
        raise DataError(f"{data.name}: none of its {len(items)} images can be read: check the corpus path")
    return replace(data, items=readable), len(items) - len(readable)


def sort_items(data: EvaluationSet) -> Dataset:
    """The items of a set by id, in the order in which they are measured and their embeddings are cached."""
    order = sorted(range(len(data.items)), key=list(data.items["id"]).__getitem__)
    return data.items.select(order, keep_in_memory=True)


def _protocol_entry(
    probe: Probe, results: Sequence[ProbeResult], data: EvaluationSet, lost: int
) -> dict[str, Any]:
    first = results[0]
    return {
        "probe": first.probe,
        "version": first.version,
        "citation": probe.citation,
        "dataset": first.dataset,
        "items": len(data.items),
        "unreadable": lost,
        "primary": first.primary,
        "chance": {metric.name: metric.chance for metric in first.metrics if "/" not in metric.name},
        "details": first.details,
        # Only details that depend on the model, such as its calibration: prompts and gallery are equal.
        "adapted_details": _changed_details(first.details, results[1].details) if len(results) == 2 else {},
    }


def _changed_details(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in other.items() if first.get(key) != value}
