"""The training items of a recipe, chosen, changed and ordered by its curation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from accelerate import PartialState

from domainclip.data.interfaces import BatchOrdering, Curation
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, UnreadableImages
from domainclip.models.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class CuratedItems:
    """What is trained on, and what was said about it."""

    items: Dataset
    strata: np.ndarray | None = None  # (n,) int64; see `interfaces.BatchOrdering`
    warnings: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """A key for the choice: a run resumes only when the same items are shown in the same order."""
        told = hashlib.sha256()
        for column in ("id", "texts"):
            told.update(repr(self.items[column][:]).encode())
        if self.strata is not None:
            told.update(self.strata.astype("<i8").tobytes())
        return told.hexdigest()


def curate(
    items: Dataset, curation: Mapping[str, Curation], model: DualEncoder | None, keep: bool
) -> CuratedItems:
    """All of a recipe's curation, in its order; `keep`: embeddings may stay in the user's cache.

    Without towers, of curation that looks at no embeddings.

    Raises: RecipeError for two that both order batches; DataError when nothing is left.
    """
    orderings = {name: part for name, part in curation.items() if isinstance(part, BatchOrdering)}
    if len(orderings) > 1:
        first, second, *_ = orderings
        raise RecipeError(f"curation: {first} and {second} both order the batches: leave one out")
    found = CuratedItems(items)
    encoder = None
    if model is not None and any("base" in one.needs for one in curation.values()):
        encoder = CachedEncoder(model.to(PartialState().device), EmbeddingCache.make(on_disk=keep))
    for name, one in curation.items():
        looks = encoder if "base" in one.needs else None
        found = _readable(found, name, looks) if looks else found
        before = len(found.items)
        chosen = one(found.items, looks)
        if not len(chosen):
            raise DataError(f"curation.{name}: none of {before} training items is left: loosen its options")
        if len(chosen) < before:
            found.warnings.append(f"curation {name}: {len(chosen)} of {before} training items are left")
        found = CuratedItems(chosen, None, found.warnings)
    for ordering in orderings.values():
        found = CuratedItems(found.items, ordering.strata(found.items, encoder), found.warnings)
    return found


def _readable(found: CuratedItems, name: str, encoder: CachedEncoder) -> CuratedItems:
    """The items whose picture can be embedded; the others are said, for nothing can be decided about them."""
    try:
        encoder.images(found.items)
    except UnreadableImages as error:
        lost = len(found.items) - len(error.readable)
        said = f"curation {name}: {lost} training items with an unreadable picture are left out"
        return CuratedItems(error.readable, None, [*found.warnings, said])
    return found
