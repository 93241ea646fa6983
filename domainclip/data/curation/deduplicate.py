"""Duplicate training items merged into one.

Legend: n items, d width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.files import row_labels
from domainclip.data.images import (
    digests,
    inspection,
    near_duplicates,
    perceptual_hashes,
    similar_rows,
)
from domainclip.data.interfaces import Curation

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class Deduplicate(Curation):
    """Keeps the first of all items whose images are duplicates, and gives it the captions of the others.

    Two images are duplicates when their bytes are equal; when one is the other re-encoded, resized, cropped
    or mirrored (the rule of `data check`); and, with `similarity`, when the base's embeddings of both have at
    least that cosine [SemDeDup, arXiv:2303.09540]. An image that occurs ten times weighs ten times, and is
    its own negative in a batch. No caption is lost: captions and labels are merged. Held-out items are never
    changed. Cost: one inspection of each image, cached by `data check`; with `similarity` the base's
    embeddings and n²/2 comparisons of them. Above 32,768 items, embeddings are compared within overlapping
    clusters of k-means alone, as in SemDeDup: in about 4,000 n d multiplications some pairs are missed, and
    none is added (docs/guide/scale.md has the recall).
    """

    citation: ClassVar[str] = "arXiv:2303.09540"

    images: bool = True  # compare the images themselves
    similarity: Annotated[float, Field(gt=0, le=1)] | None = None  # minimum cosine; 0.95 is usual

    @property
    def needs(self) -> frozenset[str]:
        """The base, where its embeddings are compared."""
        return frozenset() if self.similarity is None else frozenset({"base"})

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """One item of each set of duplicates, in the order of the first ones."""
        from domainclip.distributed import collectives  # torch

        compared = base.images(items) if self.similarity is not None and base is not None else None
        first_of = collectives.on_first_process(lambda: self._first_rows(items, compared))
        sets: dict[int, list[int]] = {}
        for row, first in enumerate(first_of.tolist()):
            sets.setdefault(first, []).append(row)
        joined = {first: rows for first, rows in sets.items() if len(rows) > 1}
        others = items.select_columns(["texts", "language", "labels", "meta"])[:]
        merged = {first: _merge_items(others, rows) for first, rows in joined.items()}
        chosen = items.select(list(sets), keep_in_memory=True)
        firsts = list(sets)
        return chosen.map(
            lambda row, at: merged.get(firsts[at], {}),
            with_indices=True,
            features=items.features,
            keep_in_memory=True,
        )

    def _first_rows(self, items: Dataset, embeddings: np.ndarray | None) -> np.ndarray:
        """(n,) int64, the first item of the set of duplicates of each item."""
        images = items["image"]
        names = list(digests.image_digests(images[row] for row in range(len(items))))
        pair_sources: list[Iterable[tuple[int, int]]] = [_equal_bytes(names)]
        if self.images:
            pair_sources.append(_similar_images(inspection.inspect_images(images, names)))
        if embeddings is not None and self.similarity is not None:
            pairs = similar_rows.pairs_that_connect(embeddings, self.similarity)
            pair_sources.append(map(tuple, pairs.tolist()))
        return np.array(_first_of_set(len(items), chain.from_iterable(pair_sources)), np.int64)


def _equal_bytes(names: list[str]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [
        (earlier, row) for row, name in enumerate(names) if (earlier := first.setdefault(name, row)) != row
    ]


def _similar_images(inspected: np.ndarray) -> list[tuple[int, int]]:
    usable = (inspected["reason"] == b"") & ~inspected["blank"]
    rows = np.flatnonzero(
        usable & (np.minimum(inspected["width"], inspected["height"]) >= perceptual_hashes.THUMBNAIL_SIDE)
    )
    scored = near_duplicates.score_pairs(inspected["thumbnail"][rows], inspected["hashes"][rows])
    pairs = near_duplicates.select_duplicates(scored, inspected["colour"][rows])
    return [(int(rows[pair.first]), int(rows[pair.second])) for pair in pairs]


def _first_of_set(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The first item of the set of each item."""
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for first, second in pairs:
        a, b = root(first), root(second)
        parent[max(a, b)] = min(a, b)
    return [root(row) for row in range(n)]


def _merge_items(columns: dict[str, list[Any]], rows: list[int]) -> dict[str, Any]:
    """The captions, languages, labels and meta of some items, each caption once; the first has its meta."""
    language_of: dict[str, str] = {}
    for row in rows:
        for text, language in zip(columns["texts"][row], columns["language"][row], strict=True):
            language_of.setdefault(text, language)
    labels = dict.fromkeys(label for row in rows for label in columns["labels"][row])
    metas = [json.loads(columns["meta"][row]) for row in rows]
    return {
        "texts": list(language_of),
        "language": list(language_of.values()),
        "labels": list(labels),
        "meta": json.dumps(row_labels.merged_meta(metas[0], metas, labels), ensure_ascii=False),
    }
