"""Runs every probe on every set for all models, before any comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from domainclip.data.interfaces import Encoder, UnreadableImages
from domainclip.errors import DataError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.class_warnings import answers_without_items, class_warnings
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.metric_names import with_names


@dataclass(frozen=True)
class ModelEvaluation:
    """The results of one probe on one set, for every model."""

    results: list[ProbeResult]
    protocol: dict[str, Any]
    warnings: list[str]
    groups: int  # number of groups in the whole set


def run_probes(
    encoders: Sequence[Encoder], sets: Sequence[EvaluationSet], probes: Mapping[str, Probe]
) -> Iterator[ModelEvaluation]:
    """Run every probe on every set and yield its scores by item, before any comparison.

    Raises: DataError when no image of a set can be read.
    """
    for data in sets:
        readable, lost = readable_items(encoders, data)
        warnings = []
        if lost:
            warnings.append(
                f"{data.name}: {lost} of {len(data.items)} images cannot be read; left out for both models"
            )
        if any(probe.classifies for probe in probes.values()):
            warnings += class_warnings(readable)
        names = {str(metric): name for metric, name in data.card.metric_names.items()}
        for probe in probes.values():
            results, readable, left_out = _run_probe(encoders, readable, probe)
            results = [with_names(result, names) for result in results]
            warnings += left_out
            of_models = [*_warnings_by_model(results), *answers_without_items(results)]
            entry = _protocol_entry(probe, results, readable, lost)
            groups = len(set(readable.items["group"][:]))
            yield ModelEvaluation(results, entry, [*warnings, *of_models], groups)


def _warnings_by_model(results: Sequence[ProbeResult]) -> list[str]:
    """The warnings of a probe; one that depends on the embeddings of a model names it."""
    texts = dict.fromkeys(text for result in results for text in result.warnings)
    holders = {text: [i for i, result in enumerate(results) if text in result.warnings] for text in texts}
    names = (
        ("base", "adapted model") if len(results) == 2 else [f"model {i + 1}" for i in range(len(results))]
    )
    return [
        text
        if len(holders[text]) == len(results)
        else f"{', '.join(names[i] for i in holders[text])}: {text}"
        for text in texts
    ]


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


def readable_items(encoders: Sequence[Encoder], data: EvaluationSet) -> tuple[EvaluationSet, int]:
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
    changed = [_changed_details(first.details, other.details) for other in results[1:]]
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
        "adapted_details": changed[0] if len(changed) == 1 else {},
        # Of several further models, the same for each, in their order.
        **({"further_details": changed} if len(changed) > 1 else {}),
    }


def _changed_details(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in other.items() if first.get(key) != value}
