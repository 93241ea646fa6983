"""Validation during training: the loss and a metric on held-out data.

Every validation uses the same few hundred pairs in the same batches, without dropout and without a random
number, so that a run ends with the same weights with and without it.

Legend: n items, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import torch
from datasets import Dataset

from domainclip import components, registry
from domainclip.config.recipe import Recipe
from domainclip.config.training import TrainConfig
from domainclip.data.batching import caption_sampling
from domainclip.data.batching.matches import Matches, MatchKeys, caption_numbers, number
from domainclip.data.corpus import Corpus
from domainclip.distributed import collectives
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, gallery_effects
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.preprocessed_images import PreprocessedImages
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.drops import cannot_be_shown, drop_at_most
from domainclip.evaluation.statistics.estimates import compare_paired
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.precision import evaluation_precision
from domainclip.objectives.base import Objective, Views
from domainclip.seeding import sample
from domainclip.training import fsdp
from domainclip.training.tower_keys import TowerKeys

_MAX_PAIRS, _MAX_RETENTION_ITEMS = 256, 512  # seconds, where an evaluation takes minutes
_RESAMPLES = 500  # for the bound of a drop
# Probes of embeddings alone; others fit a model, or encode many more texts than images.
_CHEAP_PROBES = ("zero_shot", "retrieval")


@dataclass(frozen=True)
class ValidationSet:
    """The data of a validation: pairs in fixed batches, and the retention set if the run has one."""

    pairs: EvaluationSet  # readable, at most 256
    texts: list[str]  # one for each pair
    keys: MatchKeys  # of each pair, as in training
    batch_size: int
    loss: Objective
    probes: list[Probe]
    retention: EvaluationSet | None
    cache: EmbeddingCache  # embeddings by towers that do not change
    base_metrics: dict[str, Any]  # of the base, before the first step
    base_retention: Metric | None = None  # the retention metric of the base, by item
    # The limit on the drop is met by its bound, where the retention set is large enough to show that.
    max_retention_drop: float = inf
    seed: int = 0  # of the resamples

    def measure(self, model: DualEncoder, towers: TowerKeys | None = None) -> dict[str, Any]:
        """Return `loss` and `figure` of the pairs, and `retention`; equal on all processes.

        `towers` spares the hashing of all weights.

        `figure_of` and `retention_of` name the metric; `lost` is how far it fell below that of the base, and
        `lost_at_most` the bound of that, where a drop within train.max_retention_drop can be shown at all.
        """
        with fsdp.temporarily_gathered(model) as whole, restored_modes(whole):
            encoder = CachedEncoder(whole, self.cache, None if towers is None else towers.keys(whole))
            metrics: dict[str, Any] = {"loss": self._loss(encoder)}
            for key, data in (("figure", self.pairs), ("retention", self.retention)):
                if data is not None and (headline := _headline(encoder, data, self.probes)) is not None:
                    metric, metrics[f"{key}_of"] = headline
                    metrics[key] = aggregates.point_estimate(metric.aggregate, metric.scores)
                    if key == "retention":
                        metrics |= self._lost(metric, metrics[key])
        # Embeddings of earlier weights are of no further use.
        self.cache.retain((encoder.image_key, encoder.text_key, ("raw", encoder.text_key)))
        # All processes compute the same metrics; still, those of the first one decide for all.
        return dict(collectives.gather_objects(metrics)[0])

    @property
    def floor_warnings(self) -> list[str]:
        """For the report: a limit on the drop that so few groups cannot show to be met."""
        if self.base_retention is None:
            return []
        reason = cannot_be_shown(
            self.max_retention_drop, len(set(self.base_retention.groups)), self.base_retention.unit
        )
        return [f"train.max_retention_drop: {reason}"] if reason else []

    def _lost(self, metric: Metric, value: float) -> dict[str, float]:
        sign = 1 if metric.higher_is_better else -1
        lost = {"lost": sign * (self.base_metrics.get("retention", value) - value)}
        base = self.base_retention
        if base is None or list(base.ids) != list(metric.ids) or self.floor_warnings:
            return lost
        change = compare_paired(
            base.aggregate,
            base.scores,
            metric.scores,
            base.groups,
            _RESAMPLES,
            self.seed,
            base.unit == "share",
            gallery_effects([base, metric]),
        ).difference
        assert change is not None
        bound = drop_at_most(change, len(set(base.groups)), base.higher_is_better)
        return lost | ({"lost_at_most": bound} if isfinite(bound) else {})

    def _loss(self, encoder: CachedEncoder) -> float:
        """Return the mean loss of the pairs, each among those of its batch."""
        image, text = (
            torch.from_numpy(rows) for rows in (encoder.images(self.pairs.items), encoder.texts(self.texts))
        )
        scale = torch.tensor(encoder.scale)
        bias = None if encoder.bias is None else torch.tensor(encoder.bias)
        total = 0.0
        for rows in _batches(len(self.keys), self.batch_size):
            views = Views(image[rows], text[rows], scale, bias, Matches.within(self.keys[rows]))
            total += float(self.loss(views)) * (rows.stop - rows.start)
        return total / len(self.keys)


def make_validation_set(
    recipe: Recipe,
    corpus: Corpus,
    sets: Sequence[EvaluationSet],
    terms: components.WeightedObjectives,
    probes: Mapping[str, Probe],
    base: DualEncoder,
) -> ValidationSet | None:
    """Draw the validation set by the seed and measure the base on it; None without train.validate_every.

    Raises: DataError when the validation split has no pairs, or none of its images can be read; RecipeError
    when train.on_retention_drop needs a retention set, or a metric on it, and there is none.
    """
    settings = recipe.train
    if settings.validate_every is None:
        return None
    retention = next((data for data in sets if data.name == "general"), None)
    if retention is None and settings.steers:
        raise RecipeError(
            f"train.on_retention_drop: {settings.on_retention_drop} needs a retention set: name one with "
            "retention.path=FOLDER retention.card=CARD"
        )
    cache = EmbeddingCache(
        precision=evaluation_precision(recipe.evaluate.precision),
        pixels=PreprocessedImages.for_changing_weights(),
    )
    encoder = CachedEncoder(base, cache)
    pairs = _draw(_captioned(corpus), encoder, _MAX_PAIRS, settings.seed)
    captions = _captions(pairs, base)
    replaced = terms.losses_replaced.values()
    name = base.objective if base.objective in replaced else next(iter(replaced), base.objective)
    validation = ValidationSet(
        pairs=pairs,
        texts=[texts[0] for texts in captions],
        keys=_keys(pairs, captions),
        batch_size=settings.batch_size,
        loss=registry.build("objectives", name, {}, "objectives"),
        probes=[probe for name, probe in probes.items() if name in _CHEAP_PROBES],
        retention=None
        if retention is None
        else _draw(retention, encoder, _MAX_RETENTION_ITEMS, settings.seed),
        cache=cache,
        base_metrics={},
        max_retention_drop=settings.max_retention_drop,
        seed=settings.seed,
    )
    validation = replace(validation, base_metrics=validation.measure(base))
    measured = (
        None if validation.retention is None else _headline(encoder, validation.retention, validation.probes)
    )
    validation = replace(validation, base_retention=None if measured is None else measured[0])
    if settings.steers and "retention" not in validation.base_metrics:
        raise RecipeError(
            f"train.on_retention_drop: {settings.on_retention_drop} has no metric to follow: add zero_shot "
            "or retrieval to probes, as the retention set allows"
        )
    return validation


def _captions(pairs: EvaluationSet, base: DualEncoder) -> list[list[str]]:
    """Return all texts that training could show for each pair."""
    how = pairs.card.captions
    limit = caption_sampling.TokenLimit(base.text_tokenizer.count, base.max_tokens)
    pools = caption_sampling.caption_pools(pairs.items, how, limit if how.overlong == "window" else None)
    return [pool.texts for pool in pools]


def _keys(pairs: EvaluationSet, captions: Sequence[Sequence[str]]) -> MatchKeys:
    """Return the keys of pairs that show their first caption."""
    column = pairs.card.columns.matched_by
    groups = [number(column, key) for key in pairs.items[column][:]]
    return MatchKeys.of(groups, [0] * len(captions), [caption_numbers(texts) for texts in captions])


def validation_warnings(settings: TrainConfig, split: str, halved: bool = False) -> list[str]:
    """Return a warning for each set whose metrics are optimistic, because the training depends on them.

    `split` is the one that the run is evaluated on; `halved`: the reported half of the retention set is not
    the one of the validation.
    """
    warnings = []
    if settings.steers and not halved:
        warnings.append(
            "train.on_retention_drop: the retention set influences the training, so its metrics are "
            "optimistic"
        )
    if settings.final_weights == "best" and split == "validation":
        warnings.append(
            "train.final_weights: the step is chosen on the validation split, so its metrics are optimistic"
        )
    return warnings


def _captioned(corpus: Corpus) -> EvaluationSet:
    """Return the validation split without items that have classes but no caption: they are for evaluation."""
    items = corpus.splits["validation"]
    rows = [row for row, texts in enumerate(items["texts"][:]) if texts]
    if not rows:
        raise DataError(
            f"corpus {corpus.card.name}: the validation split has no pairs: train.validate_every needs "
            "them; leave it out, or give the card a validation split"
        )
    return EvaluationSet("validation", items.select(rows, keep_in_memory=True), corpus.card, corpus.classes)


def _draw(data: EvaluationSet, encoder: CachedEncoder, max_items: int, seed: int) -> EvaluationSet:
    """Return at most `max_items` readable items, the same on every machine."""
    ids: list[str] = data.items["id"][:]
    rows = sorted(sample(ids, max_items, "held out", seed))
    items: Dataset = encode_images([encoder], data.items.select(rows, keep_in_memory=True))
    if not len(items):
        raise DataError(f"{data.name}: none of {len(rows)} images can be read: check the corpus path")
    # Nothing is fitted during training.
    return replace(data, items=items, train=None, validation=None)


def _headline(
    encoder: CachedEncoder, data: EvaluationSet, probes: Sequence[Probe]
) -> tuple[Metric, str] | None:
    """Return the primary metric of the first probe that has one here, and its name."""
    for probe in probes:
        results = probe(encoder, data)
        for metric in results.metrics:
            value = aggregates.point_estimate(metric.aggregate, metric.scores)
            if metric.name == results.primary and isfinite(value):
                return metric, f"{results.probe} {metric.name}"
    return None


def _batches(n: int, size: int) -> Iterator[slice]:
    """Yield even shares of about `size` rows: a short last batch would have an easier task."""
    count = max(1, round(n / size))
    return (slice(n * i // count, n * (i + 1) // count) for i in range(count))


@contextmanager
def restored_modes(model: DualEncoder) -> Iterator[None]:
    """Restore the training mode of every module afterwards, so that dropout acts where it did before."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
