"""Evaluation embeddings on disk, found again by content: a second suite over the same base costs seconds.

They are not anonymous (a picture can often be found again from its embedding): they stay in the cache of
whoever measured, readable by nobody else, and never go into a run folder or a push.
Legend: n rows, d width.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip import disk_cache
from domainclip.data.images import digests
from domainclip.data.images.decode import DECODING

if TYPE_CHECKING:
    from datasets import Dataset

_FEWEST = 64  # texts below which computing them again is quicker than looking
# Another decoder or another kernel may change the last bit, and one bit can turn a rank.
_MADE_BY = ("domainclip", "torch", "transformers", "pillow", "pydicom", "numpy")


@dataclass(frozen=True)
class EmbeddingCache:
    """The embeddings of whole sets under the user's cache, oldest use removed above `limit` bytes."""

    limit: int = 4 * 2**30

    def images_key(self, tower: Any, items: Dataset, device: str, studies: bool = False) -> str:
        """A name for the embeddings of these pictures by this tower, in this order; of `studies`, of all."""
        shown = ["image", "views"] if studies else ["image"]
        rows = items.select_columns(shown)  # one by one: they may be bytes
        pictures = (one for row in rows for one in (row["image"], *row.get("views", ())))
        counts = [len(views) for views in items["views"][:]] if studies else []
        found = [list(digests.of(pictures)), *([counts] if studies else [])]
        return disk_cache.key("images", DECODING, tower, *found, _versions(), device)

    def texts_key(self, tower: Any, texts: Sequence[str], device: str) -> str | None:
        """The same for texts; None for so few that keeping them is not worth a file."""
        return (
            disk_cache.key("texts", tower, list(texts), _versions(), device)
            if len(texts) >= _FEWEST
            else None
        )

    def read(self, name: str, rows: int) -> np.ndarray | None:
        """(rows, d) float32 in memory, or None; an entry of another length is not ours to believe."""
        kept = disk_cache.read("embeddings", name)
        if kept is None or kept.ndim != 2 or len(kept) != rows or kept.dtype != np.float32:
            return None
        return np.array(kept)

    def write(self, name: str, rows: np.ndarray) -> None:
        """Keeps (n, d), when there is room; a full disk costs nothing but the second run's time."""
        if not len(rows) or rows.nbytes > self.limit:
            return
        try:
            with disk_cache.writing("embeddings", name, rows.shape, np.float32, {"rows": len(rows)}) as array:
                array[:] = rows
            self._make_room()
        except OSError:
            return

    def _make_room(self) -> None:
        folder = disk_cache.root() / "embeddings"
        entries = sorted(
            (one for one in folder.iterdir() if one.name[0] != "."), key=_last_used, reverse=True
        )
        total = 0
        for entry in entries:
            total += sum(file.stat().st_size for file in entry.iterdir())
            if total > self.limit:
                shutil.rmtree(entry, ignore_errors=True)


def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in _MADE_BY]


def _last_used(entry: Path) -> float:
    return entry.stat().st_mtime
