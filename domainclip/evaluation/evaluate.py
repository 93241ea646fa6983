"""Models on the same items: every probe on every set, paired item by item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from domainclip.data.interfaces import Encoder
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation import verdicts
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.encoder import CachedEncoder, UnreadableImages, encode_images
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics import controls as statistics_controls
from domainclip.evaluation.statistics.estimates import MIN_GROUPS
from domainclip.evaluation.verdicts import ComparisonRow, add_verdicts, add_verdicts_together

if TYPE_CHECKING:
    from datasets import Dataset

# Of the control: enough to see 5 % from 15 %, and a fifth of that where one figure takes seconds.
_SWAPS, _FEWEST_SWAPS, _RESAMPLES = 100, 20, 200
_SCORES = 400_000  # scores that all swaps together may go through


@dataclass(frozen=True)
class NullControl:
    """What the procedure claims where there is nothing to claim: a headline figure, its models swapped."""

    probe: str
    dataset: str
    metric: str
    itself: str  # the verdict on the base against itself
    share: float  # of random swaps of the models, group by group, that a difference was claimed in
    swaps: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; the same on every process."""

    rows: list[ComparisonRow]
    protocol: list[dict[str, Any]]  # one entry a probe and set, JSON
    warnings: list[str]
    valid: bool
    resamples: int
    seed: int
    controls: list[NullControl] = field(default_factory=list)


@dataclass(frozen=True)
class ModelEvaluation:
    """One probe on one set, by every model."""

    results: list[ProbeResult]
    protocol: dict[str, Any]
    warnings: list[str]
    groups: int  # in the whole set


def evaluate_pair(base: Encoder, adapted: Encoder | None, protocol: Protocol) -> Evaluation:
    """Hop 8: every probe on every reported set, for both models on the same items; `adapted` may be missing.

    Raises: DataError when no image of a set can be read, RecipeError when no probe finds what it needs.
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
    """Each model but the first against the first, all on the same items; of a single model, it alone.

    Raises: DataError when no image of a set can be read, RecipeError when no probe finds what it needs.
    """
    warnings = _preparation(encoders)
    valid = not warnings
    against = range(1, len(encoders)) if len(encoders) > 1 else range(1)
    tables: list[list[ComparisonRow]] = [[] for _ in against]
    controls: list[list[NullControl]] = [[] for _ in against]
    protocol: list[dict[str, Any]] = []
    for one in run_probes(encoders, sets, probes):
        names, left_out = verdicts.are_comparable(one.results)
        warnings += [f"{one.results[0].probe} on {one.results[0].dataset}: {why}" for why in left_out]
        for table, checked, other in zip(tables, controls, against, strict=True):
            pair = [one.results[0]] + ([one.results[other]] if other else [])
            found = [verdicts.compare_metric(pair, name, resamples, seed) for name in names]
            warnings += [*one.warnings, *verdicts.interval_warnings(found, one.groups)]
            table += found
            # One headline a set: the swaps take as long as a hundred figures.
            if other and all(control.dataset != one.results[0].dataset for control in checked):
                checked += [_control(pair, row, seed) for row in found if row.primary and _enough(row)]
        if left_out and not names:
            one.protocol["details"] = {**one.protocol["details"], "not_measured": "; ".join(left_out)}
        protocol.append(one.protocol)
    if not any(tables):
        why = "; ".join(
            f"{entry['probe']} on {entry['dataset']}: {entry['details'].get('not_measured', 'no figures')}"
            for entry in protocol
        )
        raise RecipeError(f"nothing can be measured: {why or 'name at least one probe and one set'}")
    warnings += verdicts.underpowered_families(tables, resamples)
    said = list(dict.fromkeys(warnings))
    return [
        Evaluation(rows, protocol, said, valid, resamples, seed, checked)
        for rows, checked in zip(add_verdicts_together(tables), controls, strict=True)
    ]


def _enough(row: ComparisonRow) -> bool:
    return row.comparable and row.groups >= MIN_GROUPS


def _control(pair: Sequence[ProbeResult], row: ComparisonRow, seed: int) -> NullControl:
    """The same procedure where nothing can be claimed: the base against itself, and models swapped by lot."""
    base, adapted = (next(one for one in result.metrics if one.name == row.metric) for result in pair)
    itself = add_verdicts([verdicts.compare_metric([pair[0], pair[0]], row.metric, _RESAMPLES, seed)])[
        0
    ].verdict
    swaps = min(_SWAPS, max(_FEWEST_SWAPS, _SCORES // max(1, base.scores.size)))
    share = statistics_controls.false_positive_rate(
        base.aggregate, base.scores, adapted.scores, base.groups, swaps, _RESAMPLES, seed
    )
    return NullControl(row.probe, row.dataset, row.metric, str(itself), share, swaps)


def run_probes(
    encoders: Sequence[Encoder], sets: Sequence[EvaluationSet], probes: Mapping[str, Probe]
) -> Iterator[ModelEvaluation]:
    """What each probe finds on each set: the scores by item, before anything is compared.

    Raises: DataError when no image of a set can be read.
    """
    for data in sets:
        ready, lost = _ready(encoders, data)
        warnings = []
        if lost:
            warnings.append(
                f"{data.name}: {lost} of {len(data.items)} images cannot be read; left out for both models"
            )
        for probe in probes.values():
            results, ready, left_out = _results(encoders, ready, probe)
            warnings += left_out
            # Embeddings of one model may make a probe doubt what it does not of another.
            said = [text for result in results for text in result.warnings]
            entry = _protocol(probe, results, ready, lost)
            yield ModelEvaluation(results, entry, [*warnings, *said], len(set(ready.items["group"][:])))


def _results(
    encoders: Sequence[Encoder], data: EvaluationSet, probe: Probe
) -> tuple[list[ProbeResult], EvaluationSet, list[str]]:
    """What every model reaches; the splits that a probe fits on are read only when it asks for them."""
    try:
        return [probe(encoder, data) for encoder in encoders], data, []
    except UnreadableImages:
        model = [encoder for encoder in encoders if isinstance(encoder, CachedEncoder)]
        fitted = {"train": data.train, "validation": data.validation}
        splits = {name: items for name, items in fitted.items() if items is not None}
        usable = {name: encode_images(model, items) for name, items in splits.items()}
        lost = {name: len(items) - len(usable[name]) for name, items in splits.items()}
        if not any(lost.values()):
            raise
        data = replace(data, train=usable.get("train"), validation=usable.get("validation"))
        said = [
            f"{data.name}: {n} images of its {name} split cannot be read; no probe is fitted on them"
            for name, n in lost.items()
            if n
        ]
        return [probe(encoder, data) for encoder in encoders], data, said


def _preparation(encoders: Sequence[Encoder]) -> list[str]:
    """Figures of models that see differently prepared images are not comparable."""
    ways = {encoder.preparation for encoder in encoders if isinstance(encoder, CachedEncoder)}
    if len(ways) < 2:
        return []
    return ["base and adapted model prepare images differently: their figures must not be compared"]


def _ready(encoders: Sequence[Encoder], data: EvaluationSet) -> tuple[EvaluationSet, int]:
    """The readable items in order of their ids, and how many were not readable."""
    items = sort_results(data)
    model = [encoder for encoder in encoders if isinstance(encoder, CachedEncoder)]
    readable = encode_images(model, items) if model else items
    if not len(readable):
        raise DataError(f"{data.name}: none of its {len(items)} images can be read: check the corpus path")
    return replace(data, items=readable), len(items) - len(readable)


def sort_results(data: EvaluationSet) -> Dataset:
    """The items by id, as they are measured: embeddings are found again under this very selection."""
    order = sorted(range(len(data.items)), key=list(data.items["id"]).__getitem__)
    return data.items.select(order, keep_in_memory=True)


def _protocol(probe: Probe, results: Sequence[ProbeResult], data: EvaluationSet, lost: int) -> dict[str, Any]:
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
        # Only what another model changes, as its calibration: prompts and gallery are the same.
        "adapted_details": _changed(first.details, results[1].details) if len(results) == 2 else {},
    }


def _changed(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in other.items() if first.get(key) != value}
