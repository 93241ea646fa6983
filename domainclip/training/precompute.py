"""Which parts of a job are computed once: what no weight that learns stands below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from domainclip.data.batching import pixel_cache
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training import feature_cache
from domainclip.training.cache_entry import CacheBudget
from domainclip.training.run_context import RunContext
from domainclip.training.setup import StageInputs


def precompute(stage: StageInputs, run: RunContext) -> StageInputs:
    """The stage with outputs of frozen towers and layers, and decoded images, computed once.

    Prints what is cached, how much disk that takes, and why something is not.
    """
    # Images that another run has cached need no decoding; those that this run needs are cached below.
    stage = cache_features(cache_pixels(stage, run.say, build=False))
    for note in stage.notes:
        run.say(note)
    return cache_pixels(stage, run.say)


def cache_features(stage: StageInputs) -> StageInputs:
    """The stage with the outputs of its frozen towers and layers, as far as the cache has room for them."""
    setup = stage.setup
    tokens = TokenCache(setup.model.text_tokenizer)
    stage = replace(stage, captions=tokens)
    if stage.pairs.is_streamed:  # a stream is never in memory as a whole
        return stage
    if setup.settings.cache_features:
        room = CacheBudget(setup.settings.feature_cache_gb * 1e9)
        stage = _with_pictures(_with_texts(stage, tokens, room), room)
        stage = replace(stage, notes=(*stage.notes, *room.notes))
    if stage.captions is tokens and stage.precomputed.text_features is None:
        tokens.add(_texts(stage))
    return stage


def cache_pixels(stage: StageInputs, say: Callable[[str], None], build: bool = True) -> StageInputs:
    """The stage with its images decoded and resized once.

    With `build`, they are cached now if a second epoch will read them; else those of another run are used.
    """
    settings = stage.setup.settings
    pairs = pixel_cache.with_pixel_cache(
        stage.pairs,
        stage.setup.digests,
        limit_gb=settings.pixel_cache_gb,
        workers=settings.workers,
        report=say,
        build=build and settings.epochs > 1,
    )
    return replace(stage, pairs=pairs)


def _with_texts(stage: StageInputs, tokens: TokenCache, room: CacheBudget) -> StageInputs:
    first = stage.setup.model.first_trainable_layer("text")
    if _asked(stage, "text_tokens"):
        return stage
    if _asked(stage, "extra_text"):
        room.notes.append("nothing is kept of the texts: an objective makes further ones in every epoch")
        return stage
    if first is None and stage.precomputed.anchor_texts is None:
        found = feature_cache.cache_text_features(stage.setup.model, tokens, _texts(stage), room)
        return replace(stage, precomputed=replace(stage.precomputed, text_features=found))
    if first and "text" in stage.setup.model.accepts_hidden_states:
        found = feature_cache.cache_text_features(stage.setup.model, tokens, _texts(stage), room)
        return replace(stage, captions=found or tokens)
    return stage


def _with_pictures(stage: StageInputs, room: CacheBudget) -> StageInputs:
    if stage.precomputed.image_features is not None:
        room.notes.append(
            "no picture is looked at: captions of other items with the same labels stand for them"
        )
        return stage
    first = stage.setup.model.first_trainable_layer("image")
    if first == 0 or _asked(stage, "image_tokens"):
        return stage
    if reason := _unkept(stage, first):
        room.notes.append(f"nothing is kept of the pictures: {reason}")
        return stage
    found = feature_cache.cache_image_features(
        stage.setup.model, stage.pairs, [stage.setup.digests[id] for id in stage.pairs.ids], room
    )
    if found is None:
        return stage
    return replace(
        stage,
        precomputed=replace(stage.precomputed, image_features=found.rows),
        pairs=stage.pairs.without_pixels(found.replacements),
        unusable=(*stage.unusable, *found.unusable),
    )


def _unkept(stage: StageInputs, first: int | None) -> str:
    """Why pictures, or what the locked layers say of them, are not the same in every epoch."""
    if stage.pairs.extra_spec.second_view:
        return "an objective wants a second view of them, another one in each epoch"
    if stage.setup.model.frames > 1 and first is not None:
        return "how several pictures of an item are pooled is learnt"
    if stage.setup.settings.augmentation != "none":
        return (
            f"train.augmentation {stage.setup.settings.augmentation} shows another part of them in each epoch"
        )
    if stage.pairs.views_change:
        return "each epoch shows another view of an item; corpus.views=first shows the first one always"
    if first is not None and "image" not in stage.setup.model.accepts_hidden_states:
        return f"the image tower of family {stage.setup.model.family} cannot begin at a layer"
    return ""


def _asked(stage: StageInputs, view: str) -> bool:
    return view in stage.setup.objectives.needs


def _texts(stage: StageInputs) -> list[str]:
    return [
        *(text for texts in stage.pairs.texts for text in texts or [""]),
        *(stage.precomputed.anchor_texts or []),
    ]
