"""sha256 of pictures: of the whole content, and of the place in it; each file is read once until it changes.

What was read is noted in the cache, by place, size and times of a file: `make`, `rsync` and git tell a
changed file by the same. Names of files may name people, so the notes hold only hashes of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from domainclip import disk_cache
from domainclip.data.files import locations
from domainclip.data.images import fits

MISSING_FILE, EMPTY_FILE = "missing file", "empty file"
_CHUNK_IMAGES = 64  # pictures: those that are held as bytes stand in memory together
_READ_BYTES = 2**20  # bytes at once
_MAX_PENDING = 4096  # files whose notes are written together: each writing waits for the disk
_TIMESTAMP_MARGIN = (
    2 * 10**9
)  # ns: within the tick of a clock of a disk, a file may change and keep its times
_TABLE = "CREATE TABLE IF NOT EXISTS files (place BLOB PRIMARY KEY, state BLOB, digest BLOB) WITHOUT ROWID"


@dataclass(frozen=True)
class _FileRange:
    """A file, or a member of a tar, as it is now."""

    path: str
    begin: int
    size: int
    state: bytes  # size and times
    settled: bool  # its times will tell when it changes

    @property
    def place(self) -> bytes:
        """A name for where it lies, which says nothing of it."""
        said = f"{os.path.abspath(self.path)}\0{self.begin}\0{self.size}"
        return hashlib.blake2b(said.encode(errors="surrogateescape"), digest_size=16).digest()


def image_digests(pictures: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The digest of each picture {path, bytes}, in order; or what is wrong with it: MISSING or EMPTY.

    No date and no name: a copy of a corpus is the same corpus. The place inside the file, such as a frame,
    counts, and so do the files of other bands beside it.
    """
    left, read = iter(pictures), dict[_FileRange, bytes]()
    # Waiting for a disk or a file server is most of the work, so threads share it.
    with ThreadPoolExecutor(16) as pool, _open_ledger() as notes:
        try:
            while some := list(islice(left, _CHUNK_IMAGES)):
                yield from _chunk_digests(some, pool, notes, read)
                if len(read) > _MAX_PENDING:
                    _store(read, notes)
        finally:  # who has all that is wanted never asks for the end
            _store(read, notes)


def _chunk_digests(
    some: Sequence[Mapping[str, Any]],
    pool: Executor,
    notes: sqlite3.Connection | None,
    read: dict[_FileRange, bytes],
) -> list[str]:
    """The digests of some pictures; what was read for them is added to `read`."""
    parts = list(pool.map(_image_ranges, some))
    wanted = dict.fromkeys(part for own in parts for part in own if part is not None and part.size)
    known = _look_up(wanted, notes)
    fresh = [part for part in wanted if part not in known]
    found = zip(fresh, pool.map(_sha256, fresh), strict=True)
    now = {part: digest for part, digest in found if digest is not None}
    read |= now
    known |= now
    return [_image_digest(image, own, known) for image, own in zip(some, parts, strict=True)]


def _image_digest(
    image: Mapping[str, Any], parts: list[_FileRange | None], known: Mapping[_FileRange, bytes]
) -> str:
    if image["bytes"] is not None:
        content = hashlib.sha256(image["bytes"]).digest() if image["bytes"] else b""
    else:
        own, *parts = parts
        if own is None or (own.size and own not in known):
            return MISSING_FILE
        content = known[own] if own.size else b""
    if not content:
        return EMPTY_FILE
    inside = locations.split_location(image["path"] or "")[1]
    # Where a member of a tar lies says nothing of it.
    place = {key: value for key, value in inside.items() if key not in ("offset", "size")}
    beside = [known[part].hex() if part is not None and part in known else "" for part in parts]
    if not place and not beside:
        return content.hex()
    return hashlib.sha256(json.dumps([place, beside], sort_keys=True).encode() + content).hexdigest()


def _image_ranges(image: Mapping[str, Any]) -> list[_FileRange | None]:
    """What is to be read for a picture: its own file, unless its bytes are here, and those beside it."""
    path, inside = locations.split_location(image["path"] or "")
    own = [] if image["bytes"] is not None else [_file_range(path, inside)]
    return [*own, *(_file_range(str(file), {}) for file in fits.band_files(path, inside))]


def _file_range(path: str, inside: Mapping[str, str]) -> _FileRange | None:
    try:
        told = os.stat(path)
        begin = int(inside.get("offset", 0))
        size = int(inside.get("size", told.st_size - begin))
    except (OSError, ValueError):
        return None
    # The time of change cannot be set back, as that of writing is by `cp -p`.
    times = f"{told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}"
    return _FileRange(
        path, begin, size, times.encode(), time.time_ns() - told.st_mtime_ns > _TIMESTAMP_MARGIN
    )


def _sha256(part: _FileRange) -> bytes | None:
    """Of all its bytes; None when they cannot be read, or the file ends before them."""
    whole, left = hashlib.sha256(), part.size
    try:
        with open(part.path, "rb") as stream:
            stream.seek(part.begin)
            while left and (data := stream.read(min(left, _READ_BYTES))):
                whole.update(data)
                left -= len(data)
    except OSError:
        return None
    return None if left else whole.digest()


@contextmanager
def _open_ledger() -> Iterator[sqlite3.Connection | None]:
    """The table of the cache; None where there is no place for it: then all is read."""
    table = None
    # Processes that wait for each other's notes would lose more than the notes save.
    with suppress(OSError, sqlite3.Error):
        folder = disk_cache.root() / "digests" / disk_cache.key("digests", 1)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _describe_ledger(folder)
        table = sqlite3.connect(folder / "files.sqlite", timeout=1)
        try:
            table.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            table.close()
            table = None
            if not isinstance(error, sqlite3.OperationalError):  # damaged: the next reading begins anew
                (folder / "files.sqlite").unlink()
        os.utime(folder)
    try:
        yield table
    finally:
        if table is not None:
            table.close()


def _describe_ledger(folder: Path) -> None:
    """For `data cache list`."""
    about = folder / "about.json"
    if not about.exists():
        draft = folder / f".about.{os.getpid()}"
        draft.write_text(json.dumps({"what": "sha256 of files that were read"}), encoding="utf-8")
        draft.rename(about)


def _look_up(parts: Iterable[_FileRange], notes: sqlite3.Connection | None) -> dict[_FileRange, bytes]:
    found: dict[_FileRange, bytes] = {}
    if notes is None:
        return found
    with suppress(sqlite3.Error):
        for part in parts:
            row = notes.execute("SELECT state, digest FROM files WHERE place = ?", (part.place,)).fetchone()
            if row is not None and row[0] == part.state and len(row[1]) == 32:
                found[part] = row[1]
    return found


def _store(read: dict[_FileRange, bytes], notes: sqlite3.Connection | None) -> None:
    """Keeps what was read, and forgets it here."""
    rows = [(part.place, part.state, found) for part, found in read.items() if part.settled]
    read.clear()
    # A full disk, or another process that writes, costs the next reading its time and this one nothing.
    with suppress(sqlite3.Error):
        if notes is not None and rows:
            with notes:
                notes.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
