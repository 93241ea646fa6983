"""Held-out data while a model trains: what it reaches there.

The same few hundred pairs are looked at every time, in the same batches, without dropout and without a random
number, so a run learns the same weights whether anyone looks or not.

Legend: n items, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from datasets import Dataset

from domainclip import components, registry
from domainclip.config.recipe import Recipe
from domainclip.config.training import TrainConfig
from domainclip.data.batching import caption_sampling
from domainclip.data.batching.negative_groups import loss_groups
from domainclip.data.corpus import Corpus
from domainclip.distributed import collectives
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.statistics import aggregates
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.base import Objective, Views
from domainclip.seeding import sample
from domainclip.training import fsdp

_PAIRS, _GENERAL = 256, 512  # most that are looked at: seconds, where an evaluation takes minutes
# Probes that ask the embeddings alone; others fit something, or go through many more texts than pictures.
_CHEAP = ("zero_shot", "retrieval")


@dataclass(frozen=True)
class ValidationSet:
    """What is looked at: validation pairs in fixed batches, and the general set where there is one."""

    pairs: EvaluationSet  # readable, at most 256
    texts: list[str]  # one a pair
    groups: list[int]  # one a pair, as in training
    batch_size: int
    loss: Objective
    probes: list[Probe]
    retention: EvaluationSet | None
    cache: EmbeddingCache  # embeddings of towers that do not change
    base_metrics: dict[str, Any]  # what the base reaches, before its first step

    def measure(self, model: DualEncoder) -> dict[str, Any]:
        """`loss` and `figure` on the pairs, `retention` on the general set; equal on every process."""
        with fsdp.temporarily_gathered(model) as plain, _as_it_was(plain):
            encoder = CachedEncoder(plain, self.cache)
            found: dict[str, Any] = {"loss": self._loss(encoder)}
            for key, data in (("figure", self.pairs), ("retention", self.retention)):
                if data is not None and (one := _figure(encoder, data, self.probes)) is not None:
                    value, found[f"{key}_of"], sign = one
                    found[key] = value
                    if key == "retention":
                        found["lost"] = sign * (self.base_metrics.get(key, value) - value)
        # Embeddings of earlier weights are of no further use.
        self.cache.retain((encoder.image_key, encoder.text_key, ("raw", encoder.text_key)))
        # Every process computes the same; one of them decides all the same.
        return dict(collectives.gather_objects(found)[0])

    def _loss(self, encoder: CachedEncoder) -> float:
        """The mean over the pairs, each among those of its batch."""
        image, text = (
            torch.from_numpy(rows) for rows in (encoder.images(self.pairs.items), encoder.texts(self.texts))
        )
        scale = torch.tensor(encoder.scale)
        bias = None if encoder.bias is None else torch.tensor(encoder.bias)
        groups = torch.tensor(self.groups)
        total = 0.0
        for rows in _batches(len(groups), self.batch_size):
            views = Views(image[rows], text[rows], scale, bias, groups[rows])
            total += float(self.loss(views)) * (rows.stop - rows.start)
        return total / len(groups)


def make_validation_set(
    recipe: Recipe,
    corpus: Corpus,
    sets: Sequence[EvaluationSet],
    terms: components.WeightedObjectives,
    probes: Mapping[str, Probe],
    base: DualEncoder,
) -> ValidationSet | None:
    """What will be looked at, chosen by the seed, and what the base reaches on it; None: nothing.

    Raises: DataError when the validation split has no pairs, or none of its pictures can be read; RecipeError
    when a general set is to decide and there is none, or nothing to measure it by.
    """
    settings = recipe.train
    if settings.validate_every is None:
        return None
    general = next((data for data in sets if data.name == "general"), None)
    if general is None and settings.steers:
        raise RecipeError(
            f"train.on_retention_drop: {settings.on_retention_drop} needs a general set: name one with "
            "retention.path=FOLDER retention.card=CARD"
        )
    cache = EmbeddingCache()
    encoder = CachedEncoder(base, cache)
    pairs = _some(_captioned(corpus), encoder, _PAIRS, settings.seed)
    how = pairs.card.captions
    fit = (
        caption_sampling.TokenLimit(base.text_tokenizer.count, base.max_tokens)
        if how.overlong == "window"
        else None
    )
    said = [pool.texts for pool in caption_sampling.caption_pools(pairs.items, how, fit)]
    named = terms.losses_replaced.values()
    name = base.objective if base.objective in named else next(iter(named), base.objective)
    made = ValidationSet(
        pairs=pairs,
        texts=[own[0] for own in said],
        groups=[own[0] for own in loss_groups(said, pairs.items["group"][:])],
        batch_size=settings.batch_size,
        loss=registry.build("objectives", name, {}, "objectives"),
        probes=[probe for name, probe in probes.items() if name in _CHEAP],
        retention=None if general is None else _some(general, encoder, _GENERAL, settings.seed),
        cache=cache,
        base_metrics={},
    )
    made = replace(made, base_metrics=made.measure(base))
    if settings.steers and "retention" not in made.base_metrics:
        raise RecipeError(
            f"train.on_retention_drop: {settings.on_retention_drop} has nothing to go by: add zero_shot or "
            "retrieval to probes, as the general set allows"
        )
    return made


def validation_warnings(settings: TrainConfig, split: str, halved: bool = False) -> list[str]:
    """What figures are worth that something was chosen by; `split` is what the run is measured on.

    `halved`: what is reported of the general set is not what is looked at.
    """
    found = []
    if settings.steers and not halved:
        found.append(
            "train.on_retention_drop: the general set had a say in the training, so figures on it flatter"
        )
    if settings.final_weights == "best" and split == "validation":
        found.append(
            "train.final_weights: the step was chosen on the validation split, so figures on it flatter"
        )
    return found


def _captioned(corpus: Corpus) -> EvaluationSet:
    """The validation split without items of classes alone, which are for evaluation."""
    items = corpus.splits["validation"]
    rows = [row for row, texts in enumerate(items["texts"][:]) if texts]
    if not rows:
        raise DataError(
            f"corpus {corpus.card.name}: the validation split has no pairs: train.validate_every measures on "
            "them; leave it out, or give the card a validation split"
        )
    return EvaluationSet("validation", items.select(rows, keep_in_memory=True), corpus.card, corpus.classes)


def _some(data: EvaluationSet, encoder: CachedEncoder, most: int, seed: int) -> EvaluationSet:
    """At most so many readable items, the same on every machine."""
    ids: list[str] = data.items["id"][:]
    rows = sorted(sample(ids, most, "held out", seed))
    items: Dataset = encode_images([encoder], data.items.select(rows, keep_in_memory=True))
    if not len(items):
        looked = min(most, len(ids))
        raise DataError(f"{data.name}: none of {looked} images can be read: check the corpus path")
    # Nothing is fitted while a model trains.
    return replace(data, items=items, train=None, validation=None)


def _figure(
    encoder: CachedEncoder, data: EvaluationSet, probes: Sequence[Probe]
) -> tuple[float, str, int] | None:
    """The headline of the first probe that can be measured here, its name, and -1 where lower is better."""
    for probe in probes:
        results = probe(encoder, data)
        for metric in results.metrics:
            value = aggregates.point_estimate(metric.aggregate, metric.scores)
            if metric.name == results.primary and isfinite(value):
                return value, f"{results.probe} {metric.name}", 1 if metric.higher_is_better else -1
    return None


def _batches(n: int, size: int) -> Iterator[slice]:
    """Even shares of about `size` rows: a short last batch would have an easier task."""
    count = max(1, round(n / size))
    return (slice(n * i // count, n * (i + 1) // count) for i in range(count))


@contextmanager
def _as_it_was(model: DualEncoder) -> Iterator[None]:
    """Dropout acts afterwards exactly where it acted before, layer by layer."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
