"""Cache of evaluation embeddings, in memory and on disk: a second suite over the same base costs seconds.

Embeddings are not anonymous (an image can often be recovered from its embedding): they stay in the user's
cache, readable by the owner only, and never enter a run folder or a push.
Legend: n rows, d width.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip import disk_cache
from domainclip.data.images import digests
from domainclip.data.images.decode import DECODING_VERSION
from domainclip.evaluation.preprocessed_images import PreprocessedImages
from domainclip.models.precision import Precision

_MIN_TEXTS = 64  # encoding fewer texts again is faster than reading a file


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings by fingerprint of tower and items: in memory, and on disk where `disk` is set.

    Encoders that share a cache share the embeddings of towers with equal weights: a frozen tower runs once
    for the base and the adapted model.
    """

    memory: dict[Any, np.ndarray] = field(default_factory=dict)  # (tower, items) -> (n, d)
    # Keys of images in memory that a short-lived model computed, of which few remain and are worth a file.
    unwritten: set[Any] = field(default_factory=set)
    disk: DiskEmbeddings | None = None
    precision: Precision = "fp32"  # in which embeddings are computed; part of the tower's key
    pixels: PreprocessedImages = field(default_factory=PreprocessedImages)  # none are stored by default

    @classmethod
    def make(cls, on_disk: bool, precision: Precision = "fp32") -> EmbeddingCache:
        """An empty cache in memory, with the user's disk cache if `on_disk`."""
        return cls(disk=DiskEmbeddings() if on_disk else None, precision=precision)

    @property
    def memory_only(self) -> EmbeddingCache:
        """The same memory without the disk, for short-lived models."""
        return replace(self, disk=None)

    def branch(self) -> EmbeddingCache:
        """A cache that starts with these embeddings; those that it adds are released with it."""
        return replace(self, memory=dict(self.memory))

    def retain(self, towers: Container[Any]) -> None:
        """Release the embeddings of all towers but these, given by their keys."""
        for key in [key for key in self.memory if key[0] not in towers]:
            del self.memory[key]


@dataclass(frozen=True)
class DiskEmbeddings:
    """Embeddings of whole sets in the user's cache; beyond `limit` bytes, the oldest by use are removed."""

    limit: int = 4 * 2**30

    def images_key(self, tower: Any, items: Dataset, device: str, studies: bool = False) -> str:
        """The entry of a tower's embeddings of these images, in this order; with `studies`, of all views."""
        columns = ["image", "views"] if studies else ["image"]
        rows = items.select_columns(columns)  # row by row: images may be held as bytes
        images = (image for row in rows for image in (row["image"], *row.get("views", ())))
        counts = [[len(views) for views in items["views"][:]]] if studies else []
        content = [list(digests.image_digests(images)), *counts]
        return disk_cache.key("images", DECODING_VERSION, tower, *content, _versions(), device)

    def texts_key(self, tower: Any, texts: Sequence[str], device: str) -> str | None:
        """The entry of the embeddings of texts by a tower; None for texts too few for a file."""
        return (
            disk_cache.key("texts", tower, list(texts), _versions(), device)
            if len(texts) >= _MIN_TEXTS
            else None
        )

    def read(self, name: str, rows: int) -> np.ndarray | None:
        """(rows, d) float32 in memory, or None without an intact entry of this length."""
        array = disk_cache.read("embeddings", name)
        if array is None or array.ndim != 2 or len(array) != rows or array.dtype != np.float32:
            return None
        return np.array(array)

    def write(self, name: str, rows: np.ndarray) -> None:
        """Store (n, d) if there is room; after a failure to write, the next run computes it again."""
        if not len(rows) or rows.nbytes > self.limit:
            return
        try:
            with disk_cache.writing("embeddings", name, rows.shape, np.float32, {"rows": len(rows)}) as array:
                array[:] = rows
            disk_cache.Budget("embeddings", self.limit).prune()
        except OSError:
            return


def _versions() -> list[str]:
    # Another decoder or another kernel may change the last bit, and one bit can change a rank.
    return disk_cache.versions("domainclip", "torch", "transformers", "pillow", "pydicom", "numpy")
