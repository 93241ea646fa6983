"""Cache of evaluation embeddings, in memory and on disk: a second suite over the same base costs seconds.

Embeddings are not anonymous (an image can often be recovered from its embedding): they stay in the user's
cache, readable by the owner only, and never enter a run folder or a push.
Legend: n rows, d width.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip import disk_cache
from domainclip.data.images import digests
from domainclip.data.images.decode import DECODING_VERSION

if TYPE_CHECKING:
    from datasets import Dataset

_FEWEST = 64  # texts below which computing them again is quicker than reading


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings by fingerprint of tower and items: memory first, the disk behind it where `disk` is set.

    Encoders that share a cache share the embeddings of towers with equal weights: a frozen tower runs once
    for the base and the adapted model.
    """

    memory: dict[Any, np.ndarray] = field(default_factory=dict)  # (tower, items) -> (n, d)
    disk: DiskEmbeddings | None = None

    @classmethod
    def make(cls, on_disk: bool) -> EmbeddingCache:
        """An empty cache, with the user's disk cache behind it or without."""
        return cls(disk=DiskEmbeddings() if on_disk else None)

    @property
    def memory_only(self) -> EmbeddingCache:
        """The same memory without the disk, for models that exist for a moment."""
        return EmbeddingCache(self.memory)

    def branch(self) -> EmbeddingCache:
        """A cache that starts with these embeddings; what it adds is released with it."""
        return EmbeddingCache(dict(self.memory), self.disk)

    def retain(self, model: Container[Any]) -> None:
        """Release the embeddings of all other towers."""
        for key in [key for key in self.memory if key[0] not in model]:
            del self.memory[key]


@dataclass(frozen=True)
class DiskEmbeddings:
    """Embeddings of whole sets in the user's cache; the least recently used go above `limit` bytes."""

    limit: int = 4 * 2**30

    def images_key(self, tower: Any, items: Dataset, device: str, studies: bool = False) -> str:
        """The entry of these images' embeddings by a tower, in this order; with `studies`, of all views."""
        shown = ["image", "views"] if studies else ["image"]
        rows = items.select_columns(shown)  # one by one: they may be bytes
        pictures = (one for row in rows for one in (row["image"], *row.get("views", ())))
        counts = [len(views) for views in items["views"][:]] if studies else []
        found = [list(digests.image_digests(pictures)), *([counts] if studies else [])]
        return disk_cache.key("images", DECODING_VERSION, tower, *found, _versions(), device)

    def texts_key(self, tower: Any, texts: Sequence[str], device: str) -> str | None:
        """The entry of the embeddings of texts; None for too few to be worth a file."""
        return (
            disk_cache.key("texts", tower, list(texts), _versions(), device)
            if len(texts) >= _FEWEST
            else None
        )

    def read(self, name: str, rows: int) -> np.ndarray | None:
        """(rows, d) float32 in memory, or None where there is no intact entry of this length."""
        array = disk_cache.read("embeddings", name)
        if array is None or array.ndim != 2 or len(array) != rows or array.dtype != np.float32:
            return None
        return np.array(array)

    def write(self, name: str, rows: np.ndarray) -> None:
        """Store (n, d) where there is room; a full disk costs only the time of the next run."""
        if not len(rows) or rows.nbytes > self.limit:
            return
        try:
            with disk_cache.writing("embeddings", name, rows.shape, np.float32, {"rows": len(rows)}) as array:
                array[:] = rows
            disk_cache.Budget("embeddings", self.limit).prune()
        except OSError:
            return


def _versions() -> list[str]:
    # Another decoder or another kernel may change the last bit, and one bit can turn a rank.
    return disk_cache.versions("domainclip", "torch", "transformers", "pillow", "pydicom", "numpy")
