"""Training items that show the same thing twice become one.

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

_ROWS = 1024  # of similarities that stand at once


@dataclass(frozen=True, kw_only=True)
class Deduplicate(Curation):
    """Keeps the first of all items whose pictures are one, and gives it the captions of the others.

    Two pictures are one when their bytes are the same; when one is the other re-encoded, resized, cut or
    mirrored (the rule of `data check`); and, with `similarity`, when the base's embeddings of both have at
    least that cosine [SemDeDup, arXiv:2303.09540]. A picture that stands there ten times weighs ten times,
    and is its own negative in a batch. Nothing that was said is lost: captions and labels are joined.
    Held-out items are never touched. What it costs: one look at each picture, kept by `data check`; with
    `similarity` the base's embeddings and n²/2 comparisons of them.
    """

    citation: ClassVar[str] = "arXiv:2303.09540"

    pictures: bool = True  # compare the pictures themselves
    similarity: Annotated[float, Field(gt=0, le=1)] | None = None  # least cosine; 0.95 is usual

    @property
    def needs(self) -> frozenset[str]:
        """The base's embeddings, where they are compared."""
        return frozenset() if self.similarity is None else frozenset({"base"})

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """One item of each set of equal pictures, in the order of the first ones."""
        images = items["image"]
        names = list(digests.image_digests(images[row] for row in range(len(items))))
        found: list[Iterable[tuple[int, int]]] = [_equal(names)]
        if self.pictures:
            found.append(_looking_alike(inspection.inspect_images(images, names)))
        if self.similarity is not None and base is not None:
            found.append(_near(base.images(items), self.similarity))
        kept: dict[int, list[int]] = {}
        for row, first in enumerate(_firsts(len(items), chain.from_iterable(found))):
            kept.setdefault(first, []).append(row)
        joined = {first: rows for first, rows in kept.items() if len(rows) > 1}
        others = items.select_columns(["texts", "language", "labels"])[:]
        said = {first: _together(others, rows) for first, rows in joined.items()}
        chosen = items.select(list(kept), keep_in_memory=True)
        place = list(kept)
        return chosen.map(
            lambda row, at: said.get(place[at], {}),
            with_indices=True,
            features=items.features,
            keep_in_memory=True,
        )


def _equal(names: list[str]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(seen, row) for row, name in enumerate(names) if (seen := first.setdefault(name, row)) != row]


def _looking_alike(told: np.ndarray) -> list[tuple[int, int]]:
    usable = (told["reason"] == b"") & ~told["blank"]
    rows = np.flatnonzero(
        usable & (np.minimum(told["width"], told["height"]) >= perceptual_hashes.THUMBNAIL_SIDE)
    )
    scored = near_duplicates.score_pairs(told["thumbnail"][rows], told["hashes"][rows])
    pairs = near_duplicates.select_duplicates(scored, told["colour"][rows])
    return [(int(rows[pair.first]), int(rows[pair.second])) for pair in pairs]


def _near(embeddings: np.ndarray, least: float) -> Iterator[tuple[int, int]]:
    """Pairs that join all with at least that cosine; a row of NaN, an unreadable picture, is near nothing.

    Not every such pair: in a corpus of one kind, as of X-rays, there are about n² of them. Block by block
    each row comes with the first of those that the block joins it to.
    """
    n = len(embeddings)
    for start in range(0, n, _ROWS):
        block = np.triu(embeddings[start : start + _ROWS] @ embeddings[start:].T, 1)
        alike = coo_array(block >= least)
        alike.resize((n - start, n - start))
        _, part = connected_components(alike, directed=False)
        _, first = np.unique(part, return_index=True)
        first = first[part]
        for row in np.flatnonzero(first != np.arange(n - start)):
            yield start + int(first[row]), start + int(row)


def _firsts(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each item the first of its set."""
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs:
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return [root(row) for row in range(n)]


def _together(columns: dict[str, list[Any]], rows: list[int]) -> dict[str, list[str]]:
    """What all of some items say, each caption once."""
    said: dict[str, str] = {}
    for row in rows:
        for text, language in zip(columns["texts"][row], columns["language"][row], strict=True):
            said.setdefault(text, language)
    labels = dict.fromkeys(label for row in rows for label in columns["labels"][row])
    return {"texts": list(said), "language": list(said.values()), "labels": list(labels)}
