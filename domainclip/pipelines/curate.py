"""The training items of a recipe: selected, changed and ordered by its curation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from domainclip.data.corpus import Corpus
from domainclip.data.interfaces import BatchOrdering, Curation, TrainingSelection, UnreadableImages
from domainclip.distributed.phases import phase
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.models.dual_encoder import DualEncoder

_ROWS = 1000  # read at once for a digest


@dataclass(frozen=True)
class CuratedItems:
    """The items to train on."""

    items: Dataset
    strata: np.ndarray | None = None  # (n,) int64; see `BatchOrdering.strata`
    repeats: np.ndarray | None = None  # (n,) int64; see `BatchOrdering.repeats`
    selection: TrainingSelection | None = None  # chooses among the items while training
    warnings: tuple[str, ...] = ()

    def digest(self) -> str:
        """sha256 of items and order: a run resumes only when it shows the same items in the same order."""
        digest = hashlib.sha256()
        for column in ("id", "texts"):
            # The digest of repr of the whole column, a part at a time.
            for number, part in enumerate(self.items.select_columns([column]).iter(_ROWS)):
                digest.update(("[" if number == 0 else ", ").encode() + repr(part[column])[1:-1].encode())
            digest.update(b"]" if len(self.items) else b"[]")
        if self.strata is not None:
            digest.update(self.strata.astype("<i8").tobytes())
        if self.repeats is not None:
            digest.update(b"repeats" + self.repeats.astype("<i8").tobytes())
        return digest.hexdigest()


def curate_corpus(
    corpus: Corpus,
    curation: Mapping[str, Curation],
    base: DualEncoder | None,
    *,
    on_disk: bool,
    required: bool,
) -> tuple[Corpus, CuratedItems]:
    """The corpus with its training items curated, and those items; `on_disk` as in `curate`.

    Unless `required`, as to train, a corpus whose training items are a stream, or none, stays as it is.

    Raises: RecipeError for a stream; RecipeError or DataError as `curate` does.
    """
    if corpus.stream is not None and curation and required:
        raise RecipeError(
            f"curation.{next(iter(curation))}: needs all training pairs at once, and a stream "
            "shows a few: leave it out, or store the corpus with domainclip data prepare and train on that"
        )
    items = corpus.splits["train"]
    if not required and (corpus.stream is not None or not len(items)):
        return corpus, CuratedItems(items)
    curated = curate(items, curation, base, on_disk=on_disk)
    return corpus.with_train_items(curated.items), curated


@phase("curating the training items")
def curate(
    items: Dataset, curation: Mapping[str, Curation], base: DualEncoder | None, *, on_disk: bool
) -> CuratedItems:
    """Apply curation in its order; `on_disk`: embeddings may be stored in the user's cache.

    `base` may be None for curation that uses no embeddings.

    Raises: RecipeError for two that both define the batch order; DataError when no item is left.
    """
    deciding = (BatchOrdering, TrainingSelection)
    ordering = [name for name, step in curation.items() if isinstance(step, deciding)]
    if len(ordering) > 1:
        raise RecipeError(f"curation: {ordering[0]} and {ordering[1]} both define the batch order: use one")
    encoder = None
    if base is not None and any("base" in step.needs for step in curation.values()):
        encoder = CachedEncoder(base.to(PartialState().device), EmbeddingCache.make(on_disk))
    warnings: list[str] = []
    for name, step in curation.items():
        step_encoder = encoder if "base" in step.needs else None
        if step_encoder is not None:
            readable = _readable(items, step_encoder)
            if lost := len(items) - len(readable):
                warnings.append(
                    f"curation {name}: {lost} training items with an unreadable image are left out"
                )
            items = readable
        before, items = items, step(items, step_encoder)
        reasons = step.reasons(before, step_encoder)
        why = _count_reasons(reasons)
        if not len(items):
            raise DataError(
                f"curation.{name}: none of {len(before)} training items is left{why}: loosen its options"
            )
        captions = _count_captions(reasons, before, items)
        if len(items) < len(before) or captions:
            left = f"{len(items)} of {len(before)} training items are left"
            warnings.append(f"curation {name}: {left}{why}{captions}")
    strata = repeats = selection = None
    for step in curation.values():
        if isinstance(step, TrainingSelection):
            selection = step
        if isinstance(step, BatchOrdering):
            strata, repeats = step.strata(items, encoder), step.repeats(items)
    return CuratedItems(items, strata, repeats, selection, tuple(warnings))


def _count_reasons(reasons: Sequence[str]) -> str:
    """ " (left out: 10 no action, 2 fewer than 1 relations)", the most frequent first; empty without any."""
    counts = sorted(Counter(filter(None, reasons)).items(), key=lambda pair: (-pair[1], pair[0]))
    return f" (left out: {', '.join(f'{n} {reason}' for reason, n in counts)})" if counts else ""


def _count_captions(reasons: Sequence[str], before: Dataset, after: Dataset) -> str:
    """ "; 3 captions of the items that are left are left out"; empty without any, or without `reasons`."""
    if not reasons:
        return ""
    texts = zip(before["texts"][:], reasons, strict=True)
    lost = sum(len(own) for own, reason in texts if not reason) - sum(map(len, after["texts"][:]))
    if lost <= 0:
        return ""
    captions, verb = ("caption", "is") if lost == 1 else ("captions", "are")
    return f"; {lost} {captions} of the items that are left {verb} left out"


def _readable(items: Dataset, encoder: CachedEncoder) -> Dataset:
    """The items whose image can be embedded: without an embedding, nothing can be decided about an item."""
    try:
        encoder.images(items)
    except UnreadableImages as error:
        return error.readable
    return items
