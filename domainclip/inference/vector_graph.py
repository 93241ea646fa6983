"""Approximate search: a graph of the vectors of an index in a file (HNSW [arXiv:1603.09320], by usearch).

The graph only proposes images: their cosines are then computed exactly, so a match may be missed and none is
wrong. It lies beside the index, follows it, and is made again where it does not fit.
Legend: n images, d embedding width, k results.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domainclip.errors import RecipeError

if TYPE_CHECKING:
    from usearch.index import Index

ReadVectors = Callable[[Sequence[str]], Mapping[str, np.ndarray]]  # (d,) float32 by digest

_CONNECTIVITY, _ADDING = 24, 200  # edges of a node, and candidates while one is added
_CANDIDATES = 256  # candidates of a query, at least; benchmarks/approximate_search.py: recall
_OVERSAMPLED = 8  # candidates for each result
_BLOCK = 8192  # vectors that are added at a time
_COMPARED, _ALIKE = 16, 0.99  # vectors that a graph is checked by, and their smallest cosine


def check_installed() -> None:
    """Refuse an approximate search where its library is not installed.

    Raises: RecipeError with the remedy.
    """
    if find_spec("usearch") is None:
        raise RecipeError(
            '--approximate: needs usearch: pip install "domainclip[index]", or leave the option out'
        )


class VectorGraph:
    """The graph of the images of an index."""

    def __init__(self, file: Path, width: int) -> None:
        """`file` is that of the index; the graph is beside it."""
        self.file, self.width = file.with_name(f"{file.name}.usearch"), width
        self.digests: dict[int, str] = {}  # by key, of the images that are searched
        self.index = self._opened()

    def update(self, digests: Sequence[str], read: ReadVectors) -> None:
        """Add the images that the graph lacks and remove those that are gone; write it where it changed."""
        self.digests = {_key(digest): digest for digest in digests}
        if not self._fits(read):
            self.index = self._new()
        known = set(np.asarray(self.index.keys).tolist()) if len(self.index) else set[int]()
        gone = sorted(known - set(self.digests))
        if len(gone) > len(known) // 2:  # the place of a removed image stays in the graph
            self.index, known, gone = self._new(), set(), []
        if gone:
            self.index.remove(np.array(gone, dtype=np.uint64))
        missing = [key for key in self.digests if key not in known]
        for start in range(0, len(missing), _BLOCK):
            self._add(missing[start : start + _BLOCK], read)
        if gone or missing:
            self._write()

    def propose(self, vector: np.ndarray, k: int) -> set[str]:
        """The digests of the candidates for the k images nearest to a vector (d,)."""
        wanted = min(max(_CANDIDATES, _OVERSAMPLED * k), len(self.index))
        if not wanted:
            return set()
        return {self.digests[int(key)] for key in self.index.search(vector, wanted).keys}

    def _add(self, keys: Sequence[int], read: ReadVectors) -> None:
        vectors = read([self.digests[key] for key in keys])
        present = [key for key in keys if self.digests[key] in vectors]
        if present:
            rows = np.stack([vectors[self.digests[key]] for key in present])
            self.index.add(np.array(present, dtype=np.uint64), rows)

    def _new(self) -> Index:
        from usearch.index import Index

        return Index(
            ndim=self.width,
            metric="ip",
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_ADDING,
            expansion_search=_CANDIDATES,
        )

    def _opened(self) -> Index:
        index = self._new()
        try:
            if self.file.is_file() and index.load(str(self.file)) is None and index.ndim == self.width:
                return index
        except (RuntimeError, ValueError, OSError):  # a damaged file
            pass
        return self._new()

    def _fits(self, read: ReadVectors) -> bool:
        """Whether the graph has the vectors of the index: with those of another model it would miss more."""
        if not len(self.index):
            return True
        keys = [int(key) for key in np.asarray(self.index.keys)[:_COMPARED] if int(key) in self.digests]
        vectors = read([self.digests[key] for key in keys])
        return all(
            float(np.asarray(self.index.get(key), np.float32).ravel() @ vectors[self.digests[key]]) > _ALIKE
            for key in keys
            if self.digests[key] in vectors
        )

    def _write(self) -> None:
        """Write the graph whole or not at all, readable by its owner only: embeddings are not anonymous."""
        draft = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            self.index.save(str(draft))
            draft.chmod(0o600)
            os.replace(draft, self.file)
        except RuntimeError:
            raise RecipeError(f"--approximate: {self.file.name} cannot be written: leave it out") from None
        finally:
            draft.unlink(missing_ok=True)


def _key(digest: str) -> int:
    """A number of 64 bits for an image."""
    return int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "little")
