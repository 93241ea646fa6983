"""Disk cache: arrays and files that are stored under a hash of everything that they are computed from.

An entry is a folder `KIND/KEY` with `array.npy`, or other files, and `about.json`. It is written under
another name and then renamed, so that every entry is complete. `$DOMAINCLIP_CACHE` moves the cache; the
default is `~/.cache/domainclip`. Entries hold private data: only their owner may read them.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Preprocessed images; embeddings; hidden states; tar shards; results of image inspection; sha256 of files;
# embeddings for search; weights of models, converted from pickles; corpora as read, what was selected of
# them, and the findings of their checks.
KINDS = ("pixels", "embeddings", "features", "shards", "hashes", "digests", "indexes", "weights", "corpora")

RESERVED = 2**30  # bytes of the disk that no entry may take


def root() -> Path:
    """Return the folder of the cache."""
    return Path(os.environ.get("DOMAINCLIP_CACHE") or Path.home() / ".cache" / "domainclip")


def key(*parts: Any) -> str:
    """Return the name of an entry from everything that it is computed from; equal on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


def versions(*packages: str) -> list[str]:
    """Installed versions of packages, for a key: another release may change the last bit of an array."""
    return [importlib.metadata.version(package) for package in packages]


def read(kind: str, name: str) -> np.ndarray | None:
    """Return the array of an entry, memory-mapped and read-only; None without a readable entry."""
    folder = root() / kind / name
    try:
        array: np.ndarray = np.load(folder / "array.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # the cache may be read-only
        os.utime(folder)  # the least recently used entry is removed first
    return array


@contextmanager
def writing(
    kind: str, name: str, shape: tuple[int, ...], dtype: Any, about: dict[str, Any]
) -> Iterator[np.ndarray]:
    """Yield an array to fill; it becomes the entry when the block ends, and is removed when the block fails.

    Raises: OSError when the disk is full or cannot be written.
    """
    with writing_files(kind, name, about) as draft:
        array = np.lib.format.open_memmap(draft / "array.npy", mode="w+", dtype=dtype, shape=shape)
        _allocate(draft / "array.npy")
        yield array
        array.flush()


def computed(kind: str, name: str, compute: Callable[[], np.ndarray], about: dict[str, Any]) -> np.ndarray:
    """Return the array of an entry, which is computed and written where there is none.

    A full disk costs the next run its time, and this one nothing.
    """
    array = read(kind, name)
    if array is None:
        array = compute()
        if array.size:  # an empty file cannot be mapped
            with suppress(OSError), writing(kind, name, array.shape, array.dtype, about) as entry:
                entry[:] = array
    return array


def content(array: np.ndarray) -> str:
    """Return a digest of type, shape and values of an array, for a key."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(array).data, key=hashlib.sha256(head).digest()).hexdigest()


def find_files(kind: str, name: str) -> Path | None:
    """Return the folder of an entry of files; None without one."""
    folder = root() / kind / name
    if not (folder / "about.json").is_file():
        return None
    with suppress(OSError):  # the cache may be read-only
        os.utime(folder)  # the least recently used entry is removed first
    return folder


@contextmanager
def writing_files(kind: str, name: str, about: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to fill; it becomes the entry when the block ends, and is removed when the block fails.

    Raises: OSError when the disk is full or cannot be written.
    """
    place = root() / kind / name
    draft = place.with_name(f".{name}.{uuid.uuid4().hex}")
    sweep()
    draft.mkdir(parents=True, mode=0o700)
    try:
        yield draft
        (draft / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        if not place.exists():  # another process may have been first; entries of one name are equal
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def temporary(kind: str) -> Path:
    """Return a new folder that is removed when this process ends; of a killed one, as an unfinished entry.

    Raises: OSError when the disk is full or cannot be written.
    """
    folder = root() / kind / f".{uuid.uuid4().hex}"
    sweep()
    folder.mkdir(parents=True, mode=0o700)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class Entry:
    """One entry, as `data cache list` shows it."""

    kind: str
    name: str
    size: int  # bytes
    last_used: float  # seconds since 1970
    description: str


def entries(kind: str | None = None) -> list[Entry]:
    """Return all entries, or those of a kind, the most recently used first."""
    kinds = KINDS if kind is None else (kind,)
    folders = [folder for name in kinds for folder in (root() / name).glob("[!.]*") if folder.is_dir()]
    complete = [entry for folder in folders if (entry := _entry(folder)) is not None]
    return sorted(complete, key=lambda entry: (-entry.last_used, entry.kind, entry.name))


def drafts(untouched: float = 0) -> list[Entry]:
    """Return unfinished entries, of killed or of running processes, not touched for `untouched` seconds."""
    folders = [folder for kind in KINDS for folder in sorted((root() / kind).glob(".*")) if folder.is_dir()]
    unfinished = []
    for folder in folders:
        try:
            stats = [file.stat() for file in (folder, *folder.iterdir())]
        except OSError:  # just finished, or removed
            continue
        entry = Entry(
            folder.parent.name,
            folder.name,
            sum(stat.st_size for stat in stats[1:]),
            max(stat.st_mtime for stat in stats),
            "unfinished",
        )
        unfinished.append(entry)
    return [entry for entry in unfinished if time.time() - entry.last_used >= untouched]


def remove(kind: str, name: str) -> None:
    """Remove an entry; a process that has it mapped can still read it.

    Raises: OSError when it cannot be removed.
    """
    place = root() / kind / name
    renamed = place.with_name(f".{name}.{uuid.uuid4().hex}")
    place.rename(renamed)  # at once, so that no process reads half of it
    shutil.rmtree(renamed)


def prune(max_bytes: int, kind: str | None = None) -> int:
    """Remove the least recently used entries until the rest fits in `max_bytes`; return the bytes removed."""
    total, removed = 0, 0
    for entry in entries(kind):
        total += entry.size
        if total > max_bytes:
            try:
                remove(entry.kind, entry.name)
            except OSError:  # another process has removed it
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
    """Remove the unfinished entries of killed processes that are older than `older_than` seconds."""
    for draft in root().glob("*/.*"):
        if draft.is_dir() and time.time() - draft.stat().st_mtime > older_than:
            shutil.rmtree(draft, ignore_errors=True)


def format_size(size: float) -> str:
    """Return for example `1.2 GB`, from bytes."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _allocate(file: Path) -> None:
    """Allocate the file at once: a full disk would otherwise kill the process that writes to the mapping."""
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
