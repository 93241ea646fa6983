"""Which parts of a job are computed once: what no weight that learns stands below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from domainclip.data.batching import pixel_cache
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training import feature_cache
from domainclip.training.cache_entry import CacheBudget
from domainclip.training.setup import TrainingSetup


def with_kept_features(setup: TrainingSetup) -> TrainingSetup:
    """The same job, with what its locked towers and layers say computed once instead of every epoch.

    Its `notes` say what is kept, how much disk that takes, and why something is not.
    """
    tokens = TokenCache(setup.model.text_tokenizer)
    setup = replace(setup, captions=tokens)
    settings = setup.recipe.train
    if setup.pairs.is_streamed:  # a stream is never in memory as a whole
        return setup
    if settings.cache_features:
        room = CacheBudget(settings.feature_cache_gb * 1e9)
        setup = _with_pictures(_with_texts(setup, tokens, room), room)
        setup = replace(setup, notes=(*setup.notes, *room.notes))
    if setup.captions is tokens and setup.precomputed.text_features is None:
        tokens.add(_texts(setup))
    return setup


def with_kept_pixels(setup: TrainingSetup, say: Callable[[str], None], build: bool = True) -> TrainingSetup:
    """The same job, its pictures decoded and resized once.

    They are made now, if `build` and a second epoch will read them; else those of another run are used.
    """
    settings = setup.recipe.train
    pairs = pixel_cache.with_pixel_cache(
        setup.pairs,
        setup.digests,
        limit_gb=settings.pixel_cache_gb,
        workers=settings.workers,
        report=say,
        build=build and settings.epochs > 1,
    )
    return replace(setup, pairs=pairs)


def _with_texts(setup: TrainingSetup, tokens: TokenCache, room: CacheBudget) -> TrainingSetup:
    first = setup.model.first_trainable_layer("text")
    if _asked(setup, "text_tokens"):
        return setup
    if _asked(setup, "extra_text"):
        room.notes.append("nothing is kept of the texts: an objective makes further ones in every epoch")
        return setup
    if first is None and setup.precomputed.anchor_texts is None:
        found = feature_cache.cache_text_features(setup.model, tokens, _texts(setup), room)
        return replace(setup, precomputed=replace(setup.precomputed, text_features=found))
    if first and "text" in setup.model.accepts_hidden_states:
        found = feature_cache.cache_text_features(setup.model, tokens, _texts(setup), room)
        return replace(setup, captions=found or tokens)
    return setup


def _with_pictures(setup: TrainingSetup, room: CacheBudget) -> TrainingSetup:
    if setup.precomputed.image_features is not None:
        room.notes.append(
            "no picture is looked at: captions of other items with the same labels stand for them"
        )
        return setup
    first = setup.model.first_trainable_layer("image")
    if first == 0 or _asked(setup, "image_tokens"):
        return setup
    if reason := _unkept(setup, first):
        room.notes.append(f"nothing is kept of the pictures: {reason}")
        return setup
    found = feature_cache.cache_image_features(
        setup.model, setup.pairs, [setup.digests[id] for id in setup.pairs.ids], room
    )
    if found is None:
        return setup
    return replace(
        setup,
        precomputed=replace(setup.precomputed, image_features=found.rows),
        pairs=setup.pairs.without_pixels(found.replacements),
        unusable=(*setup.unusable, *found.unusable),
    )


def _unkept(setup: TrainingSetup, first: int | None) -> str:
    """Why pictures, or what the locked layers say of them, are not the same in every epoch."""
    if setup.pairs.extra_spec.second_view:
        return "an objective wants a second view of them, another one in each epoch"
    if setup.model.frames > 1 and first is not None:
        return "how several pictures of an item are pooled is learnt"
    if setup.recipe.train.augmentation != "none":
        return (
            f"train.augmentation {setup.recipe.train.augmentation} shows another part of them in each epoch"
        )
    if setup.pairs.views_change:
        return "each epoch shows another view of an item; corpus.views=first shows the first one always"
    if first is not None and "image" not in setup.model.accepts_hidden_states:
        return f"the image tower of family {setup.model.family} cannot begin at a layer"
    return ""


def _asked(setup: TrainingSetup, view: str) -> bool:
    return view in setup.terms.needs


def _texts(setup: TrainingSetup) -> list[str]:
    return [
        *(text for texts in setup.pairs.texts for text in texts or [""]),
        *(setup.precomputed.anchor_texts or []),
    ]
