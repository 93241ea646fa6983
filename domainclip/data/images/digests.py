"""sha256 digests of images: of the file's content and of the location in it.

Digests are recorded in the cache by path, size and times of a file, as `make`, `rsync` and git detect
changes, so that each file is read once until it changes. File names may name people: the record holds only
hashes of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from domainclip import disk_cache
from domainclip.data.files import locations
from domainclip.data.images import fits_settings

T = TypeVar("T")
Result = TypeVar("Result")
MISSING_FILE, EMPTY_FILE = "missing file", "empty file"
_CHUNK_IMAGES = 64  # images given as bytes are in memory together
_PART = 4  # images that a thread handles one after another
_READ_BYTES = 2**20
_MAX_PENDING = 4096  # digests that are written together: each transaction waits for the disk
# ns: within one tick of a file system's clock a file can change and keep its times.
_TIMESTAMP_MARGIN = 2 * 10**9
_TABLE = "CREATE TABLE IF NOT EXISTS files (place BLOB PRIMARY KEY, state BLOB, digest BLOB) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)  # there is one for each image
class _FileRange:
    """The bytes of a file, or of a member of a tar, in their present state."""

    path: str
    begin: int
    size: int
    state: bytes  # size and times
    settled: bool  # a later change will change the times

    @property
    def key(self) -> bytes:
        """A hash of path and range, which reveals neither."""
        location = f"{os.path.abspath(self.path)}\0{self.begin}\0{self.size}"
        return hashlib.blake2b(location.encode(errors="surrogateescape"), digest_size=16).digest()


def image_digests(images: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The digest of each image {path, bytes}, in order; MISSING_FILE or EMPTY_FILE if it has none.

    Neither dates nor names are hashed: a copy of a corpus is the same corpus. The location inside the file,
    such as a frame, is hashed, and so is the content of the files of other bands.
    """
    remaining, computed = iter(images), dict[_FileRange, bytes]()
    # Most of the time is spent waiting for a disk or a file server, so threads share the work.
    with ThreadPoolExecutor(16) as pool, _open_record() as record:
        try:
            while chunk := list(islice(remaining, _CHUNK_IMAGES)):
                yield from _chunk_digests(chunk, pool, record, computed)
                if len(computed) > _MAX_PENDING:
                    _store(computed, record)
                    computed.clear()
        finally:  # the caller may stop before the end
            _store(computed, record)


def _chunk_digests(
    images: Sequence[Mapping[str, Any]],
    pool: Executor,
    record: sqlite3.Connection | None,
    computed: dict[_FileRange, bytes],
) -> list[str]:
    """The digests of some images; those of files that had to be read are added to `computed`."""
    ranges = _in_parts(pool, _image_ranges, images)
    needed = dict.fromkeys(part for parts in ranges for part in parts if part is not None and part.size)
    known = _look_up(needed, record)
    unknown = [part for part in needed if part not in known]
    fresh = {
        part: digest
        for part, digest in zip(unknown, _in_parts(pool, _sha256, unknown), strict=True)
        if digest is not None
    }
    computed |= fresh
    return [_image_digest(image, parts, known | fresh) for image, parts in zip(images, ranges, strict=True)]


def _in_parts(pool: Executor, call: Callable[[T], Result], values: Sequence[T]) -> list[Result]:
    """The result of each value; a task of its own for each would cost more than most results."""
    parts = [values[start : start + _PART] for start in range(0, len(values), _PART)]
    return [result for results in pool.map(lambda part: list(map(call, part)), parts) for result in results]


def _image_digest(
    image: Mapping[str, Any], ranges: list[_FileRange | None], known: Mapping[_FileRange, bytes]
) -> str:
    if image["bytes"] is not None:
        content = hashlib.sha256(image["bytes"]).digest() if image["bytes"] else b""
        bands = ranges
    else:
        file, *bands = ranges
        if file is None or (file.size and file not in known):
            return MISSING_FILE
        content = known[file] if file.size else b""
    if not content:
        return EMPTY_FILE
    fragment = locations.split_location(image["path"] or "")[1]
    # The position of a member in a tar file says nothing about its content.
    selection = {key: value for key, value in fragment.items() if key not in ("offset", "size")}
    band_digests = [known[band].hex() if band is not None and band in known else "" for band in bands]
    if not selection and not band_digests:
        return content.hex()
    return hashlib.sha256(
        json.dumps([selection, band_digests], sort_keys=True).encode() + content
    ).hexdigest()


def _image_ranges(image: Mapping[str, Any]) -> list[_FileRange | None]:
    """What has to be read for an image: its file, unless its bytes are given, then its band files."""
    path, fragment = locations.split_location(image["path"] or "")
    file = [] if image["bytes"] is not None else [_file_range(path, fragment)]
    return [*file, *(_file_range(str(band), {}) for band in fits_settings.band_files(path, fragment))]


def _file_range(path: str, fragment: Mapping[str, str]) -> _FileRange | None:
    """The range as it is now; None if there is no such file."""
    try:
        status = os.stat(path)
        begin = int(fragment.get("offset", 0))
        size = int(fragment.get("size", status.st_size - begin))
    except (OSError, ValueError):
        return None
    # The time of change cannot be set back, unlike the time of modification, which `cp -p` sets back.
    state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    settled = time.time_ns() - status.st_mtime_ns > _TIMESTAMP_MARGIN
    return _FileRange(path, begin, size, state.encode(), settled)


def _sha256(part: _FileRange) -> bytes | None:
    """The digest of a range; None if it cannot be read, or the file ends before it does."""
    digest, remaining = hashlib.sha256(), part.size
    try:
        with open(part.path, "rb") as stream:
            stream.seek(part.begin)
            while remaining and (data := stream.read(min(remaining, _READ_BYTES))):
                digest.update(data)
                remaining -= len(data)
    except OSError:
        return None
    return None if remaining else digest.digest()


@contextmanager
def _open_record() -> Iterator[sqlite3.Connection | None]:
    """The table of known digests in the cache; None if it cannot be opened: then every file is read."""
    connection = None
    # A short timeout: processes that wait for each other's writes would lose more time than the record saves.
    with suppress(OSError, sqlite3.Error):
        folder = disk_cache.root() / "digests" / disk_cache.key("digests", 1)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_about(folder)
        connection = sqlite3.connect(folder / "files.sqlite", timeout=1)
        try:
            connection.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            connection.close()
            connection = None
            if not isinstance(error, sqlite3.OperationalError):  # damaged: the next run starts a new one
                (folder / "files.sqlite").unlink()
        os.utime(folder)
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _write_about(folder: Path) -> None:
    """Write the description that `data cache list` shows."""
    about = folder / "about.json"
    if not about.exists():
        draft = folder / f".about.{os.getpid()}"
        draft.write_text(json.dumps({"what": "sha256 of files that were read"}), encoding="utf-8")
        draft.rename(about)


def _look_up(parts: Iterable[_FileRange], record: sqlite3.Connection | None) -> dict[_FileRange, bytes]:
    """The recorded digests of ranges that have not changed since."""
    known: dict[_FileRange, bytes] = {}
    if record is None:
        return known
    by_key = {part.key: part for part in parts}
    places = ", ".join("?" * len(by_key))
    with suppress(sqlite3.Error):
        query = f"SELECT place, state, digest FROM files WHERE place IN ({places})"
        for place, state, digest in record.execute(query, list(by_key)):
            if state == by_key[place].state and len(digest) == 32:
                known[by_key[place]] = digest
    return known


def _store(computed: Mapping[_FileRange, bytes], record: sqlite3.Connection | None) -> None:
    rows = [(part.key, part.state, digest) for part, digest in computed.items() if part.settled]
    # A full disk, or another process that is writing, costs the next run its time and this run nothing.
    with suppress(sqlite3.Error):
        if record is not None and rows:
            with record:
                record.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
