"""Hop 3: the evaluation protocol of a recipe, the same for every model.

Each α of the weight interpolation is measured on the validation split, which selects it, and on the retention
set, which shows what is forgotten and does not select. Where a recipe sets a floor, the retention set does
select: then one half of it selects and only the other half is reported, since a metric on items that were
selected on is too high.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets import concatenate_datasets

from domainclip import registry
from domainclip.config.recipe import Recipe, WeightInterpolation
from domainclip.data.corpus import Corpus
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.base import RETENTION, EvaluationSet, Probe
from domainclip.evaluation.contamination import Overlap, find_overlap
from domainclip.evaluation.embedding_cache import DiskEmbeddings, EmbeddingCache
from domainclip.evaluation.preprocessed_images import PreprocessedImages
from domainclip.evaluation.protocol import Protocol
from domainclip.models.precision import evaluation_precision
from domainclip.pipelines.inputs import EvaluationInputs


def make_protocol(inputs: EvaluationInputs) -> Protocol:
    """The protocol that the recipe asks for; nothing is measured yet.

    Raises: RecipeError for a floor without a retention set; DataError for one that is too small to be halved.
    """
    recipe = inputs.recipe
    sets = evaluation_sets(recipe, inputs.corpus, inputs.retention)
    reported = reported_sets(sets, recipe.weight_interpolation)
    record = inputs.training_record
    return Protocol(
        reported=reported,
        probes=with_sources(inputs.probes, inputs.corpus),
        bootstrap_samples=recipe.evaluate.bootstrap_samples,
        seed=recipe.evaluate.seed,
        margin=recipe.retention.margin if recipe.retention else None,
        selection=selection_sets(sets, recipe.weight_interpolation, inputs.corpus),
        interpolation=recipe.weight_interpolation,
        embeddings=EmbeddingCache(
            disk=DiskEmbeddings() if recipe.evaluate.cache_embeddings else None,
            precision=evaluation_precision(recipe.evaluate.precision),
            pixels=PreprocessedImages.for_changing_weights(),
        ),
        overlap=find_overlap({"the adapted model": record}, reported) if record else Overlap(),
    )


def with_sources(probes: Mapping[str, Probe], corpus: Corpus) -> Mapping[str, Probe]:
    """The probes, with `sources` where the card of the corpus names a source or an acquisition."""
    columns = corpus.card.columns
    if "sources" in probes or not (columns.source or columns.acquisition):
        return probes
    return {**probes, "sources": registry.build("probes", "sources", {}, "probes.sources")}


def evaluation_sets(recipe: Recipe, corpus: Corpus, retention: Corpus | None) -> list[EvaluationSet]:
    """The held-out split of the corpus and, where there is one, the whole retention set."""
    split = recipe.evaluate.split
    # Probes fit, and select, on other items than the measured ones.
    train, validation = corpus.splits["train"], corpus.splits["validation"]
    sets = [
        EvaluationSet(
            split,
            corpus.splits[split],
            corpus.card,
            corpus.classes,
            train=train if len(train) else None,
            validation=validation if split != "validation" and len(validation) else None,
            fingerprint=corpus.fingerprint,
            split=split,
        )
    ]
    if retention is not None:
        items = concatenate_datasets(list(retention.splits.values()))  # nothing is trained on any of it
        known = {"fingerprint": retention.fingerprint, "split": "all"}
        sets.append(EvaluationSet(RETENTION, items, retention.card, retention.classes, **known))
    return sets


def reported_sets(
    sets: Sequence[EvaluationSet], interpolation: WeightInterpolation | None
) -> list[EvaluationSet]:
    """The sets of the report: with a floor, the half of the retention set that nothing is selected on.

    Raises: RecipeError for a floor without a retention set; DataError for one that is too small to be halved.
    """
    if not _has_floor(interpolation):
        return list(sets)
    if all(data.name != RETENTION for data in sets):
        raise RecipeError(
            "weight_interpolation.max_retention_drop: no retention set is measured: name one with "
            "retention.path=FOLDER "
            "retention.card=CARD, or leave it out"
        )
    return [_half(data, reported=True) if data.name == RETENTION else data for data in sets]


def selection_sets(
    sets: Sequence[EvaluationSet], interpolation: WeightInterpolation | None, corpus: Corpus
) -> list[EvaluationSet]:
    """The sets that α is selected on: the validation split, and the retention set.

    With a floor, of the retention set only the half that is not reported.
    """
    splits = corpus.splits
    # A probe may fit on the training split; on the validation split, which is measured here, it must not.
    train = splits["train"] if len(splits["train"]) else None
    validation = EvaluationSet("validation", splits["validation"], corpus.card, corpus.classes, train=train)
    floor = _has_floor(interpolation)
    return [validation, *(_half(data, reported=False) if floor else data for data in sets[1:])]


def _has_floor(interpolation: WeightInterpolation | None) -> bool:
    return interpolation is not None and interpolation.max_retention_drop is not None


def _half(data: EvaluationSet, reported: bool) -> EvaluationSet:
    """The items whose group falls on one side of a hash: the same on every machine, groups whole.

    Raises: DataError for a set that is too small to be halved.
    """
    rows = [i for i, group in enumerate(data.items["group"][:]) if _side(str(group)) == reported]
    if not rows or len(rows) == len(data.items):
        raise DataError(
            "weight_interpolation.max_retention_drop: the retention set has too few groups to select on "
            f"one half and report the other: {len(data.items)} items; leave it out"
        )
    return replace(data, items=data.items.select(rows, keep_in_memory=True))


def _side(group: str) -> bool:
    return bool(hashlib.blake2b(group.encode(), digest_size=1).digest()[0] & 1)
