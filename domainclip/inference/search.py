"""Search of images by words, by an image, or by both, in blocks, over an index that updates itself.

It is exact, unless a graph of the vectors is asked for, which proposes the images that are compared.

Legend: n images, d embedding width, k results.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from domainclip import disk_cache
from domainclip.data.images.decode import DECODING_VERSION
from domainclip.data.images.digests import EMPTY_FILE, MISSING_FILE, image_digests
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.inference import vector_graph
from domainclip.inference.adapted_model import AdaptedModel
from domainclip.inference.image_sources import ImageSource
from domainclip.inference.image_stream import UnreadableSource, encode_stream
from domainclip.inference.progress import CountProgress
from domainclip.inference.vector_store import VectorStore

_BLOCK = 8192  # images whose vectors are in memory at a time


@dataclass(frozen=True)
class Query:
    """What is searched for: words, an image, or both as a weighted sum."""

    words: str | None = None
    image: str | None = None  # a file
    text_weight: float = 0.5  # of the words, where there is an image too: between 0 and 1

    def vector(self, model: AdaptedModel) -> np.ndarray:
        """(d,) of unit length: w times the embedding of the words plus 1 - w times that of the image.

        Raises: RecipeError for no query, or a weight that is no share; DataError for an image that cannot be
        read.
        """
        if not 0 <= self.text_weight <= 1:
            raise RecipeError(f"--text-weight: must lie between 0 and 1, got {self.text_weight:g}")
        parts = []
        if self.words is not None:
            parts.append((self.text_weight, model.encode_texts([self.words])[0]))
        if self.image is not None:
            parts.append((1 - self.text_weight, model.encode_images([self.image])[0]))
        if not parts:
            raise RecipeError("search: name words, or an image with --image, or both")
        total = sum(weight * vector for weight, vector in parts) if len(parts) > 1 else parts[0][1]
        vector: np.ndarray = total / max(float(np.linalg.norm(total)), 1e-12)
        return vector.astype(np.float32)


@dataclass(frozen=True)
class Match:
    """One result of a search."""

    name: str
    cosine: float  # with the query, rounded to six decimals as in reports


@dataclass(frozen=True)
class SearchResult:
    """The nearest images, the most similar first, and the images that cannot be read."""

    matches: list[Match]
    searched: int  # images that could be read
    unreadable: list[UnreadableSource] = field(default_factory=list)
    items: list[tuple[str, str]] = field(default_factory=list)  # name and digest of each readable image


def image_fingerprint(model: AdaptedModel) -> str:
    """A hash of everything that an embedding of an image depends on besides the image."""
    encoder = model.encoder
    versions = disk_cache.versions("domainclip", "torch", "transformers", "pillow", "pydicom", "numpy")
    return disk_cache.key(encoder.image_key, DECODING_VERSION, versions, encoder.device)


def search(
    model: AdaptedModel,
    query: Query,
    sources: Sequence[ImageSource],
    top: int = 10,
    quiet: bool = True,
    *,
    file: Path | None = None,
    digests: Sequence[str] | None = None,
    approximate: bool = False,
) -> SearchResult:
    """The `top` images nearest to the query. An image that is new or has changed is encoded, once.

    Equal cosines stand in the order of the sources; files of equal content are all listed. `file` is an index
    that a person named, by default one in the cache; with `digests` (n,), it is searched as it is, and the
    files of the sources need not exist. `approximate` needs a `file`: a graph beside it proposes
    images, whose cosines are exact; it may miss some.

    Raises: RecipeError for no query, or without the library of the graph; DataError when no image can be
    read.
    """
    vector = query.vector(model)
    with VectorStore(image_fingerprint(model), model.width, file) as store:
        index = _Index(store, model, sources, digests)
        if digests is None:
            index.update(quiet)
        proposed = index.proposed(vector, top, file) if approximate and file is not None else None
        best = list[tuple[float, int]]()
        for rows, vectors in index.blocks(proposed):
            cosines = rounded_cosines(vectors, vector[None])[:, 0]
            nearest = np.argsort(-cosines, kind="stable")[:top]
            candidates = [*best, *((-float(cosines[i]), rows[i]) for i in nearest)]
            best = sorted(candidates)[:top]
    unreadable = [UnreadableSource(sources[row].name, reason) for row, reason in sorted(index.faults.items())]
    readable = len(sources) - len(unreadable)
    if not readable:
        raise DataError(f"none of {len(sources)} images can be read: {unreadable[0].reason}")
    matches = [Match(sources[row].name, -cosine) for cosine, row in best]
    return SearchResult(matches, readable, unreadable, index.items())


class _Index:
    """The sources with the digests of their images, and a store that has a vector of each."""

    def __init__(
        self,
        store: VectorStore,
        model: AdaptedModel,
        sources: Sequence[ImageSource],
        digests: Sequence[str] | None,
    ) -> None:
        self.store, self.model, self.sources = store, model, sources
        self.faults = {row: source.fault for row, source in enumerate(sources) if source.fault}
        present = [row for row in range(len(sources)) if row not in self.faults]
        known = image_digests(sources[row].image for row in present) if digests is None else digests
        self.digests = dict(zip(present, known, strict=True))  # by position
        for row, digest in self.digests.items():
            if digest in (MISSING_FILE, EMPTY_FILE):
                self.faults[row] = digest

    def items(self) -> list[tuple[str, str]]:
        """Name and digest of each readable image."""
        return [
            (self.sources[row].name, digest) for row, digest in self.digests.items() if row not in self.faults
        ]

    def update(self, quiet: bool) -> None:
        """Encode the images that the store lacks, one of each content."""
        missing = [row for rows in self._row_blocks() for row in self._missing(rows)]
        self._encode(list({self.digests[row]: row for row in reversed(missing)}.values())[::-1], quiet)

    def proposed(self, vector: np.ndarray, top: int, file: Path) -> set[str]:
        """The digests that a graph of the readable images proposes for a query vector (d,)."""
        vector_graph.check_installed()
        graph = vector_graph.VectorGraph(file, self.model.width)
        graph.update(list(dict.fromkeys(digest for _, digest in self.items())), self.store.read)
        return graph.propose(vector, top)

    def blocks(self, only: Container[str] | None = None) -> Iterator[tuple[list[int], np.ndarray]]:
        """The positions of the readable sources, or of those of some digests, and their vectors (n, d)."""
        for rows in self._row_blocks(only):
            vectors = self._vectors(rows)
            if lost := [row for row in rows if self.digests[row] not in vectors]:  # by damage to the file
                self._encode(lost, quiet=True)
                vectors = self._vectors(rows)
            readable = [row for row in rows if row not in self.faults]
            if readable:
                yield readable, np.stack([vectors[self.digests[row]] for row in readable])

    def _row_blocks(self, only: Container[str] | None = None) -> list[list[int]]:
        rows = [
            row
            for row, digest in self.digests.items()
            if row not in self.faults and (only is None or digest in only)
        ]
        return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]

    def _vectors(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return self.store.read([self.digests[row] for row in rows])

    def _missing(self, rows: Sequence[int]) -> list[int]:
        known = self._vectors(rows)
        return [row for row in rows if self.digests[row] not in known]

    def _encode(self, rows: Sequence[int], quiet: bool) -> None:
        """Encode some sources into the store; files whose content cannot be decoded share its fault."""
        sources, faults = [self.sources[row] for row in rows], dict[str, str]()
        with CountProgress(len(rows), "new images encoded", quiet or not rows) as progress:
            for chunk in encode_stream(self.model.encoder, sources, progress):
                digests = [self.digests[rows[i]] for i in chunk.rows]
                self.store.write(dict(zip(digests, chunk.embeddings, strict=True)))
                faults |= {self.digests[rows[i]]: reason for i, reason in chunk.faults.items()}
        for row, digest in self.digests.items():
            if digest in faults:
                self.faults[row] = faults[digest]
