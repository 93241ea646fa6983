"""Arrays on disk that are found again by what they were made from.

An entry is a folder `KIND/KEY` with `array.npy` and `about.json`. It is written beside its place and renamed
into it, so that an entry that is there is whole. `$DOMAINCLIP_CACHE` moves the cache; the default is
`~/.cache/domainclip`. What is kept is made of pictures and captions: only its owner may read it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Prepared pictures; towers' outputs; hidden states; tars; looks at pictures; sha256 of files.
KINDS = ("pixels", "embeddings", "features", "shards", "hashes", "digests")


RESERVED = 2**30  # bytes of the disk that no entry may take


def root() -> Path:
    """The folder of the cache."""
    return Path(os.environ.get("DOMAINCLIP_CACHE") or Path.home() / ".cache" / "domainclip")


def key(*parts: Any) -> str:
    """A name for what an entry was made from: equal parts, equal name, on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


def versions(*packages: str) -> list[str]:
    """Installed versions of packages, for a key: another release may change the last bit of an array."""
    return [importlib.metadata.version(package) for package in packages]


def read(kind: str, name: str) -> np.ndarray | None:
    """The array of an entry, memory-mapped and read-only; None when it is not there."""
    folder = root() / kind / name
    try:
        array: np.ndarray = np.load(folder / "array.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # a cache that may only be read is as good
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
    sweep()
    draft.mkdir(parents=True, mode=0o700)
    try:
        array = np.lib.format.open_memmap(draft / "array.npy", mode="w+", dtype=dtype, shape=shape)
        _take_room(draft / "array.npy")
        yield array
        array.flush()
        (draft / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        if not place.exists():  # another process may have been first; equal names hold equal arrays
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True)
class Entry:
    """One entry, as `data cache list` shows it."""

    kind: str
    name: str
    size: int  # bytes
    used: float  # when it was made or last read, seconds since 1970
    what: str


def entries(kind: str | None = None) -> list[Entry]:
    """All entries, or those of a kind, what was used last first."""
    folders = [folder for one in KINDS if kind in (None, one) for folder in (root() / one).glob("[!.]*")]
    found = [_entry(folder) for folder in folders if folder.is_dir()]
    return sorted(
        (entry for entry in found if entry), key=lambda entry: (-entry.used, entry.kind, entry.name)
    )


def drafts(untouched: float = 0) -> list[Entry]:
    """What a run began that was killed or still writes; only what was not touched for so many seconds."""
    folders = [folder for kind in KINDS for folder in sorted((root() / kind).glob(".*")) if folder.is_dir()]
    found = []
    for folder in folders:
        try:
            facts = [file.stat() for file in (folder, *folder.iterdir())]
        except OSError:  # it was just finished or removed
            continue
        entry = Entry(
            folder.parent.name,
            folder.name,
            sum(one.st_size for one in facts[1:]),
            max(one.st_mtime for one in facts),
            "unfinished",
        )
        found.append(entry)
    return [entry for entry in found if time.time() - entry.used >= untouched]


def remove(kind: str, name: str) -> None:
    """Removes an entry; who has it mapped may read on.

    Raises: OSError when it cannot be removed.
    """
    place = root() / kind / name
    gone = place.with_name(f".{name}.{uuid.uuid4().hex}")
    place.rename(gone)  # at once: nobody finds half of it
    shutil.rmtree(gone)


def prune(max_bytes: int, kind: str | None = None) -> int:
    """Removes what was used longest ago until the rest takes no more than that; the bytes removed."""
    total, removed = 0, 0
    for entry in entries(kind):
        total += entry.size
        if total > max_bytes:
            try:
                remove(entry.kind, entry.name)
            except OSError:  # another process removes it too
                continue
            removed += entry.size
    return removed


@dataclass(frozen=True)
class Budget:
    """The disk space that the entries of a kind may take together."""

    kind: str
    limit: float  # bytes

    def fits(self, size: int) -> bool:
        """Return whether entries of `size` bytes in total are within the limit."""
        return size <= self.limit

    def prune(self, size: int = 0) -> int:
        """Remove the least recently used entries until `size` more bytes fit; return the bytes removed."""
        return prune(int(self.limit) - size, self.kind)


def free_bytes() -> int:
    """Bytes that are free on the disk of the cache; 0 if that cannot be determined."""
    try:
        folder = next(path for path in (root(), *root().parents) if path.exists())
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def has_room(size: int, free: int) -> bool:
    """Return whether `size` bytes fit on a disk with `free` bytes and leave the reserved ones free."""
    return size + RESERVED <= free


def sweep(older_than: float = 7 * 86_400) -> None:
    """Removes the drafts of processes that were killed, once they are older than so many seconds."""
    for draft in root().glob("*/.*"):
        if draft.is_dir() and time.time() - draft.stat().st_mtime > older_than:
            shutil.rmtree(draft, ignore_errors=True)


def in_words(size: float) -> str:
    """`1.2 GB`, of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _take_room(file: Path) -> None:
    """The whole file on the disk now: a disk that fills up later would end the process, without a word."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def _entry(folder: Path) -> Entry | None:
    try:
        size = sum(file.stat().st_size for file in folder.iterdir())
        used = folder.stat().st_mtime
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    what = about.get("what", "") if isinstance(about, dict) else ""
    return Entry(folder.parent.name, folder.name, size, used, str(what))
