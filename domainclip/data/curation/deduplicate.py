"""Duplicate training items merged into one.

Legend: n items, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from domainclip.data.images import digests, inspection, near_duplicates, perceptual_hashes
from domainclip.data.interfaces import Curation

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder

_ROWS = 1024  # of similarities in memory at once


@dataclass(frozen=True, kw_only=True)
class Deduplicate(Curation):
    """Keeps the first of all items whose images are duplicates, and gives it the captions of the others.

    Two images are duplicates when their bytes are equal; when one is the other re-encoded, resized, cropped
    or mirrored (the rule of `data check`); and, with `similarity`, when the base's embeddings of both have at
    least that cosine [SemDeDup, arXiv:2303.09540]. An image that occurs ten times weighs ten times, and is
    its own negative in a batch. No caption is lost: captions and labels are merged. Held-out items are never
    changed. Cost: one inspection of each image, cached by `data check`; with `similarity` the base's
    embeddings and n²/2 comparisons of them.
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
        images = items["image"]
        names = list(digests.image_digests(images[row] for row in range(len(items))))
        pair_sources: list[Iterable[tuple[int, int]]] = [_equal_bytes(names)]
        if self.images:
            pair_sources.append(_similar_images(inspection.inspect_images(images, names)))
        if self.similarity is not None and base is not None:
            pair_sources.append(_similar_embeddings(base.images(items), self.similarity))
        sets: dict[int, list[int]] = {}
        for row, first in enumerate(_first_of_set(len(items), chain.from_iterable(pair_sources))):
            sets.setdefault(first, []).append(row)
        joined = {first: rows for first, rows in sets.items() if len(rows) > 1}
        others = items.select_columns(["texts", "language", "labels"])[:]
        merged = {first: _merge_captions(others, rows) for first, rows in joined.items()}
        chosen = items.select(list(sets), keep_in_memory=True)
        firsts = list(sets)
        return chosen.map(
            lambda row, at: merged.get(firsts[at], {}),
            with_indices=True,
            features=items.features,
            keep_in_memory=True,
        )


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


def _similar_embeddings(embeddings: np.ndarray, min_cosine: float) -> Iterator[tuple[int, int]]:
    """Pairs that connect all rows with at least that cosine; a row of NaN, an unreadable image, has none.

    Not every such pair: in a uniform corpus, such as X-rays, there are about n² of them. Block by block each
    row is paired with the first row that the block connects it to.
    """
    n = len(embeddings)
    for start in range(0, n, _ROWS):
        block = np.triu(embeddings[start : start + _ROWS] @ embeddings[start:].T, 1)
        alike = coo_array(block >= min_cosine)
        alike.resize((n - start, n - start))
        _, component = connected_components(alike, directed=False)
        _, first = np.unique(component, return_index=True)
        first = first[component]
        for row in np.flatnonzero(first != np.arange(n - start)):
            yield start + int(first[row]), start + int(row)


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


def _merge_captions(columns: dict[str, list[Any]], rows: list[int]) -> dict[str, list[str]]:
    """The captions, languages and labels of some items, each caption once."""
    language_of: dict[str, str] = {}
    for row in rows:
        for text, language in zip(columns["texts"][row], columns["language"][row], strict=True):
            language_of.setdefault(text, language)
    labels = dict.fromkeys(label for row in rows for label in columns["labels"][row])
    return {"texts": list(language_of), "language": list(language_of.values()), "labels": list(labels)}
