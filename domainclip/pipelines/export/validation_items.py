"""The validation items of a run, on which an export is compared, and the metrics of the run on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

from domainclip.components import build_probes
from domainclip.config import loading
from domainclip.data.interfaces import Encoder
from domainclip.errors import DomainclipError
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.encoder import encode_images
from domainclip.evaluation.run_folders import RECIPE
from domainclip.evaluation.statistics import aggregates
from domainclip.pipelines.export.source import ExportSource
from domainclip.pipelines.measured_corpus import load_measured_corpus
from domainclip.seeding import sample

_MAX_ITEMS = 512  # seconds for a model of usual size
_PROBES = ("zero_shot", "retrieval")  # others fit a model, or encode many more texts than images
_METRICS = ("accuracy", "macro_accuracy", "macro_auroc", "image_to_text_r1", "text_to_image_r1")


@dataclass(frozen=True)
class ValidationItems:
    """Readable items of the validation split, and the probes of the run that measure them."""

    data: EvaluationSet
    probes: Mapping[str, Probe]

    def metrics(self, encoder: Encoder) -> dict[str, float]:
        """The headline metrics of a model, by name."""
        values: dict[str, float] = {}
        for probe in self.probes.values():
            result = probe(encoder, self.data)
            for metric in result.metrics:
                value = aggregates.point_estimate(metric.aggregate, metric.scores)
                if metric.name in (*_METRICS, result.primary) and isfinite(value):
                    values[metric.name] = value
        return values


def load_validation_items(source: ExportSource) -> ValidationItems | None:
    """At most 512 items, the same on every machine; None where the corpus is not at hand.

    None as well where the run pools several images: no exported model does that by itself.
    """
    if source.model.frames > 1 or not (source.run / RECIPE).is_file():
        return None
    try:
        recipe = loading.load_recipe(str(source.run / RECIPE))
        corpus = load_measured_corpus(recipe, None, [], own_recipe=True).corpus
        probes = {name: probe for name, probe in build_probes(recipe).items() if name in _PROBES}
    except (DomainclipError, OSError):
        return None
    items = corpus.splits["validation"]
    rows = sorted(sample(items["id"][:], _MAX_ITEMS, "export"))
    classes = source.classes.classes if source.classes is not None else corpus.classes
    data = EvaluationSet(
        "validation", items.select(rows, keep_in_memory=True), corpus.card, classes, split="validation"
    )
    readable = encode_images([source.encoder], data.items) if rows else data.items
    return ValidationItems(replace(data, items=readable), probes) if len(readable) else None
