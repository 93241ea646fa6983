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
from functools import cache
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

from domainclip import disk_cache
from domainclip.data.files import locations
from domainclip.data.images import fits_settings

T = TypeVar("T")
Result = TypeVar("Result")
MISSING_FILE, EMPTY_FILE = "missing file", "empty file"
_CHUNK_IMAGES = 64  # images given as bytes are in memory together
_PART_FILES, _PART_MEMBERS = 4, 16  # of a tar file: what a thread handles one after another
_READ_BYTES = 2**20
# Digests are written together, because each transaction waits for the disk; those of large files, which took
# long to read, after a while.
_MAX_PENDING, _MAX_SECONDS = 65_536, 30
# ns: within one tick of a file system's clock a file can change and keep its times.
_TIMESTAMP_MARGIN = 2 * 10**9
_TABLE = "CREATE TABLE IF NOT EXISTS files (place BLOB PRIMARY KEY, state BLOB, digest BLOB) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class _FileState:
    """A file as it is now."""

    path: str  # absolute
    size: int
    state: bytes  # size and times
    settled: bool  # a later change will change the times


@dataclass(frozen=True, slots=True)  # there is one for each image
class _FileRange:
    """The bytes of a file, or of a member of a tar, in their present state."""

    path: str
    begin: int
    size: int
    state: bytes  # of the file
    settled: bool
    key: bytes  # a hash of path and range, which reveals neither


@dataclass(frozen=True, slots=True)
class _Place:
    """What has to be read for an image: its file, unless its bytes are given, then its band files."""

    ranges: list[_FileRange | None]
    fragment: Mapping[str, str]  # of its location


def image_digests(images: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The digest of each image {path, bytes}, in order; MISSING_FILE or EMPTY_FILE if it has none.

    Neither dates nor names are hashed: a copy of a corpus is the same corpus. The location inside the file,
    such as a frame, is hashed, and so is the content of the files of other bands.
    """
    remaining, computed, stored = iter(images), dict[_FileRange, bytes](), time.monotonic()
    # Most of the time is spent waiting for a disk or a file server, so threads share the work.
    with ThreadPoolExecutor(16) as pool, _open_record() as record:
        try:
            while chunk := list(islice(remaining, _CHUNK_IMAGES)):
                yield from _chunk_digests(chunk, pool, record, computed)
                if len(computed) > _MAX_PENDING or time.monotonic() - stored > _MAX_SECONDS:
                    _store(computed, record)
                    computed.clear()
                    stored = time.monotonic()
        finally:  # the caller may stop before the end
            _store(computed, record)


def _chunk_digests(
    images: Sequence[Mapping[str, Any]],
    pool: Executor,
    record: sqlite3.Connection | None,
    computed: dict[_FileRange, bytes],
) -> list[str]:
    """The digests of some images; those of files that had to be read are added to `computed`."""
    files = [(image["path"] or "").partition("#")[0] for image in images]
    places = _in_parts(pool, _places_of_images, images, files)
    needed = dict.fromkeys(
        part for place in places for part in place.ranges if part is not None and part.size
    )
    known = _look_up(needed, record)
    unknown = [part for part in needed if part not in known]
    sums = _in_parts(pool, _sha256_of_ranges, unknown, [part.path for part in unknown])
    fresh = {part: digest for part, digest in zip(unknown, sums, strict=True) if digest is not None}
    computed |= fresh
    known |= fresh
    return [_image_digest(image, place, known) for image, place in zip(images, places, strict=True)]


def _in_parts(
    pool: Executor,
    call: Callable[[Sequence[T]], list[Result]],
    values: Sequence[T],
    files: Sequence[str],
) -> list[Result]:
    """`call` of the values of some files, or of some members of one, at a time; the results joined.

    A task for each value would cost more than most results.
    """
    parts = [values[start:end] for start, end in pairwise(_starts_of_parts(files))]
    return [result for results in pool.map(call, parts) for result in results]


def _starts_of_parts(files: Sequence[str]) -> list[int]:
    """Where a part begins that holds _PART_FILES files or _PART_MEMBERS members at most; and the end."""
    starts, in_part, last = list[int](), 0, ""
    for at, file in enumerate(files):
        in_part += file != last or not at
        if not at or in_part > _PART_FILES or at - starts[-1] >= _PART_MEMBERS:
            starts.append(at)
            in_part = 1
        last = file
    return [*starts, len(files)]


def _image_digest(image: Mapping[str, Any], place: _Place, known: Mapping[_FileRange, bytes]) -> str:
    bands = place.ranges
    if image["bytes"] is not None:
        content = hashlib.sha256(image["bytes"]).digest() if image["bytes"] else b""
    else:
        file, *bands = place.ranges
        if file is None or (file.size and file not in known):
            return MISSING_FILE
        content = known[file] if file.size else b""
    if not content:
        return EMPTY_FILE
    # The position of a member in a tar file says nothing about its content.
    selection = {key: value for key, value in place.fragment.items() if key not in ("offset", "size")}
    band_digests = [known[band].hex() if band is not None and band in known else "" for band in bands]
    if not selection and not band_digests:
        return content.hex()
    return hashlib.sha256(
        json.dumps([selection, band_digests], sort_keys=True).encode() + content
    ).hexdigest()


def _places_of_images(images: Sequence[Mapping[str, Any]]) -> list[_Place]:
    state_of = cache(_file_state)  # once for a part: a tar file holds many images
    places = []
    for image in images:
        path, fragment = locations.split_location(image["path"] or "")
        file = [] if image["bytes"] is not None else [_file_range(path, fragment, state_of(path))]
        bands = map(str, fits_settings.band_files(path, fragment))
        places.append(_Place([*file, *(_file_range(band, {}, state_of(band)) for band in bands)], fragment))
    return places


def _file_state(path: str) -> _FileState | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    # The time of change cannot be set back, unlike the time of modification, which `cp -p` sets back.
    state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    settled = time.time_ns() - status.st_mtime_ns > _TIMESTAMP_MARGIN
    return _FileState(os.path.abspath(path), status.st_size, state.encode(), settled)


def _file_range(path: str, fragment: Mapping[str, str], file: _FileState | None) -> _FileRange | None:
    """The range as it is now; None if there is no such file."""
    if file is None:
        return None
    try:
        begin = int(fragment.get("offset", 0))
        size = int(fragment.get("size", file.size - begin))
    except ValueError:
        return None
    location = f"{file.path}\0{begin}\0{size}".encode(errors="surrogateescape")
    key = hashlib.blake2b(location, digest_size=16).digest()
    return _FileRange(path, begin, size, file.state, file.settled, key)


def _sha256_of_ranges(ranges: Sequence[_FileRange]) -> list[bytes | None]:
    """The digest of each range; None if it cannot be read, or the file ends before it does."""
    return [
        digest
        for path, of_file in groupby(ranges, lambda part: part.path)
        for digest in _sha256_in_file(path, list(of_file))
    ]


def _sha256_in_file(path: str, ranges: Sequence[_FileRange]) -> list[bytes | None]:
    try:
        with open(path, "rb", buffering=0) as stream:
            return [_sha256(stream.fileno(), part) for part in ranges]
    except OSError:
        return [None] * len(ranges)


def _sha256(handle: int, part: _FileRange) -> bytes | None:
    digest, at, end = hashlib.sha256(), part.begin, part.begin + part.size
    try:
        while at < end and (data := os.pread(handle, min(end - at, _READ_BYTES), at)):
            digest.update(data)
            at += len(data)
    except OSError:
        return None
    return digest.digest() if at == end else None


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
    # In the order of the table: each of its pages is written once.
    rows = sorted((part.key, part.state, digest) for part, digest in computed.items() if part.settled)
    # A full disk, or another process that is writing, costs the next run its time and this run nothing.
    with suppress(sqlite3.Error):
        if record is not None and rows:
            with record:
                record.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
