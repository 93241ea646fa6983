"""Which parts of a job are computed once: what no weight that learns stands below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from domainclip.data.batching import pixel_cache
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training import feature_cache
from domainclip.training.setup import TrainingSetup


def with_kept_features(job: TrainingSetup) -> TrainingSetup:
    """The same job, with what its locked towers and layers say computed once instead of every epoch.

    Its `notes` say what is kept, how much disk that takes, and why something is not.
    """
    tokens = TokenCache(job.towers)
    job = replace(job, captions=tokens)
    settings = job.recipe.train
    if isinstance(job.pairs, StreamedPairs):  # a stream is never seen whole
        return job
    if settings.keep_features:
        room = feature_cache.CacheBudget(settings.keep_features_gb * 1e9)
        job = _with_pictures(_with_texts(job, tokens, room), room)
        job = replace(job, notes=(*job.notes, *room.notes))
    if job.captions is tokens and job.kept.text is None:
        tokens.remember(_texts(job))
    return job


def with_kept_pixels(job: TrainingSetup, say: Callable[[str], None], build: bool = True) -> TrainingSetup:
    """The same job, its pictures decoded and resized once.

    They are made now, if `build` and a second epoch will read them; else those of another run are used.
    """
    settings = job.recipe.train
    pairs = pixel_cache.kept(
        job.pairs,
        job.digests,
        limit_gb=settings.pixel_cache_gb,
        workers=settings.workers,
        say=say,
        build=build and settings.epochs > 1,
    )
    return replace(job, pairs=pairs)


def _with_texts(job: TrainingSetup, tokens: TokenCache, room: feature_cache.CacheBudget) -> TrainingSetup:
    first = job.towers.first_learning("text")
    if _asked(job, "text_tokens"):
        return job
    if _asked(job, "said"):
        room.notes.append("nothing is kept of the texts: an objective makes further ones in every epoch")
        return job
    if first is None and job.kept.sentences is None:
        found = feature_cache.cache_text_features(job.towers, tokens, _texts(job), room)
        return replace(job, kept=replace(job.kept, text=found))
    if first and "text" in job.towers.can_begin:
        found = feature_cache.cache_text_features(job.towers, tokens, _texts(job), room)
        return replace(job, captions=found or tokens)
    return job


def _with_pictures(job: TrainingSetup, room: feature_cache.CacheBudget) -> TrainingSetup:
    if job.kept.image is not None:
        room.notes.append(
            "no picture is looked at: captions of other items with the same labels stand for them"
        )
        return job
    first = job.towers.first_learning("image")
    if first == 0 or _asked(job, "image_tokens"):
        return job
    if reason := _unkept(job, first):
        room.notes.append(f"nothing is kept of the pictures: {reason}")
        return job
    found = feature_cache.cache_image_features(
        job.towers, job.pairs, [job.digests[id] for id in job.pairs.ids], room
    )
    if found is None:
        return job
    return replace(
        job,
        kept=replace(job.kept, image=found.rows),
        pairs=job.pairs.without_pixels(found.replaced),
        bad=(*job.bad, *found.bad),
    )


def _unkept(job: TrainingSetup, first: int | None) -> str:
    """Why pictures, or what the locked layers say of them, are not the same in every epoch."""
    if job.pairs.wanted.second:
        return "an objective wants a second view of them, another one in each epoch"
    if job.towers.frames > 1 and first is not None:
        return "how several pictures of an item are pooled is learnt"
    if job.recipe.train.augmentation != "none":
        return f"train.augmentation {job.recipe.train.augmentation} shows another part of them in each epoch"
    if job.pairs.views_change:
        return "each epoch shows another view of an item; corpus.views=first shows the first one always"
    if first is not None and "image" not in job.towers.can_begin:
        return f"the image tower of family {job.towers.family} cannot begin at a layer"
    return ""


def _asked(job: TrainingSetup, view: str) -> bool:
    return any(view in objective.needs for _, objective in job.terms.values())


def _texts(job: TrainingSetup) -> list[str]:
    return [*(text for texts in job.pairs.texts for text in texts or [""]), *(job.kept.sentences or [])]
