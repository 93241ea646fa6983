"""Computed once for a stage: outputs of frozen towers and layers, and decoded images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from domainclip.data.batching import pixel_cache
from domainclip.data.batching.item_columns import IN_MEMORY
from domainclip.data.files.mapped_tables import look_up
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training import feature_cache
from domainclip.training.anchor_images import with_hidden_states
from domainclip.training.cache_entry import CacheBudget
from domainclip.training.precision import frozen_precision
from domainclip.training.run_context import RunContext
from domainclip.training.setup import StageInputs


def precompute(stage: StageInputs, run: RunContext) -> StageInputs:
    """Return the stage with outputs of frozen towers and layers, and decoded images, computed once.

    Prints what is cached, how much disk space it takes, and why something is not cached.
    """
    # Images that another run has cached need no decoding; those that this run needs are cached below.
    stage = cache_features(cache_pixels(stage, run.say, build=False))
    for note in stage.notes:
        run.say(note)
    return cache_pixels(stage, run.say)


def cache_features(stage: StageInputs) -> StageInputs:
    """Return the stage with the outputs of its frozen towers and layers that the cache has room for."""
    setup = stage.setup
    tokens = TokenCache(setup.model.text_tokenizer)
    stage = replace(stage, captions=tokens)
    if stage.pairs.is_streamed:  # a stream is never complete in memory
        return stage
    if setup.settings.cache_features:
        budget = CacheBudget(setup.settings.feature_cache_gb * 1e9)
        stage = _with_images(_with_texts(stage, tokens, budget), budget)
        stage = replace(stage, notes=(*stage.notes, *budget.notes))
    few = len(stage.pairs) <= IN_MEMORY  # the texts of many pairs are tokenized when they are shown
    if stage.captions is tokens and stage.precomputed.text_features is None and few:
        tokens.add(_texts(stage))
    return stage


def cache_pixels(stage: StageInputs, say: Callable[[str], None], build: bool = True) -> StageInputs:
    """Return the stage with its images decoded and resized once.

    With `build`, they are cached now if there is a second epoch; without, only an existing cache is used.
    """
    settings = stage.setup.settings
    pairs = pixel_cache.with_pixel_cache(
        stage.pairs,
        stage.setup.digests,
        limit_gb=settings.pixel_cache_gb,
        workers=settings.workers,
        report=say,
        build=build and stage.setup.epochs > 1,
    )
    return replace(stage, pairs=pairs)


def _with_texts(stage: StageInputs, tokens: TokenCache, budget: CacheBudget) -> StageInputs:
    first = stage.setup.model.first_trainable_layer("text")
    if _needs(stage, "text_tokens"):
        return stage
    if _needs(stage, "extra_text"):
        budget.notes.append("texts are not cached: an objective makes new ones in every epoch")
        return stage
    if first is None and stage.precomputed.anchor_texts is None:
        features = _text_features(stage, tokens, budget)
        return replace(stage, precomputed=replace(stage.precomputed, text_features=features))
    if first and "text" in stage.setup.model.accepts_hidden_states:
        features = _text_features(stage, tokens, budget)
        return replace(stage, captions=features or tokens)
    return stage


def _text_features(
    stage: StageInputs, tokens: TokenCache, budget: CacheBudget
) -> feature_cache.TextFeatures | None:
    precision = frozen_precision(stage.setup.settings)
    return feature_cache.cache_text_features(stage.setup.model, tokens, _texts(stage), budget, precision)


def _with_images(stage: StageInputs, budget: CacheBudget) -> StageInputs:
    if stage.precomputed.image_features is not None:
        budget.notes.append("images are not read: captions of other items with the same labels replace them")
        return stage
    first = stage.setup.model.first_trainable_layer("image")
    if first == 0 or _needs(stage, "image_tokens") or _needs(stage, "masked_tokens"):
        return stage
    if reason := _changes_by_epoch(stage, first):
        budget.notes.append(f"images are not cached: {reason}")
        return stage
    settings = stage.setup.settings
    anchors = stage.precomputed.anchor_images
    if anchors is not None and first is not None:  # cached either both or not at all
        anchors = with_hidden_states(anchors, stage.setup.model, budget, settings)
        if anchors is None:
            return stage
    features = feature_cache.cache_image_features(
        stage.setup.model,
        stage.pairs,
        list(look_up(stage.setup.digests, stage.pairs.ids)),
        budget,
        settings.workers,
        frozen_precision(settings),
    )
    if features is None:
        return stage
    return replace(
        stage,
        precomputed=replace(stage.precomputed, image_features=features.rows, anchor_images=anchors),
        pairs=stage.pairs.without_pixels(features.replacements),
        unusable=(*stage.unusable, *features.unusable),
    )


def _changes_by_epoch(stage: StageInputs, first: int | None) -> str:
    """Return why images, or the outputs of frozen layers for them, cannot be cached; empty if they can."""
    if stage.pairs.extra_spec.second_view:
        return "an objective needs a second view of each, a new one in every epoch"
    if _needs(stage, "mixed_image"):
        return "an objective mixes them, anew in every step"
    if stage.setup.model.frames > 1 and first is not None:
        return "the pooling of several images of an item is learned"
    if stage.setup.settings.augmentation != "none":
        augmentation = stage.setup.settings.augmentation
        return f"train.augmentation {augmentation} changes each in every epoch"
    if stage.pairs.views_change:
        return "each epoch shows a different view of an item; corpus.views=first always shows the first one"
    if first is not None and "image" not in stage.setup.model.accepts_hidden_states:
        return f"the image tower of family {stage.setup.model.family} does not accept hidden states"
    return ""


def _needs(stage: StageInputs, view: str) -> bool:
    return view in stage.setup.objectives.needs


def _texts(stage: StageInputs) -> list[str]:
    return [*stage.pairs.texts(), *(stage.precomputed.anchor_texts or [])]
