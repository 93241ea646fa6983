"""Arrays on disk that are found again by what they were made from.

An entry is a folder `KIND/KEY` with `array.npy` and `about.json`. It is written beside its place and renamed
into it, so that an entry that is there is whole. `$DOMAINCLIP_CACHE` moves the cache; the default is
`~/.cache/domainclip`. What is kept is made of pictures and captions: only its owner may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("pixels", "embeddings", "features")  # prepared pictures; towers' outputs; hidden states


def root() -> Path:
    """The folder of the cache."""
    return Path(os.environ.get("DOMAINCLIP_CACHE") or Path.home() / ".cache" / "domainclip")


def key(*parts: Any) -> str:
    """A name for what an entry was made from: equal parts, equal name, on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


def read(kind: str, name: str) -> np.ndarray | None:
    """The array of an entry, memory-mapped and read-only; None when it is not there."""
    folder = root() / kind / name
    try:
        array: np.ndarray = np.load(folder / "array.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    os.utime(folder)  # what was used last is removed last
    return array


@contextmanager
def writing(
    kind: str, name: str, shape: tuple[int, ...], dtype: Any, about: dict[str, Any]
) -> Iterator[np.ndarray]:
    """An array to fill; it becomes the entry when the block ends, and is removed when it fails.

    Raises: OSError when the disk is full or may not be written.
    """
    place = root() / kind / name
    draft = place.with_name(f".{name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True, mode=0o700)
    try:
        array = np.lib.format.open_memmap(draft / "array.npy", mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
        (draft / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        if not place.exists():  # another process may have been first; equal names hold equal arrays
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
