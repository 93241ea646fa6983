"""Tar files of samples: members `KEY.jpg` and `KEY.txt` or `KEY.json`, in the layout of WebDataset.

Nothing is ever extracted, followed or run: members are ranges of bytes, and only images and texts are read. A
tar file may come from anyone, so all other members are counted and ignored.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from domainclip import disk_cache
from domainclip.data.files.tar_headers import plain_member
from domainclip.data.files.tar_samples import (
    IMAGE_SUFFIXES,
    OTHER_SUFFIX,
    REPORTABLE_SUFFIXES,
    IgnoredMember,
    Sample,
    SampleFamily,
    split_name,
)

_MAX_IMAGE_BYTES, _MAX_TEXT_BYTES = 2**30, 2**24
_VERSION = 3  # of the index in the cache
# Everything that tarfile was observed to raise on broken files.
_TAR_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, EOFError, MemoryError)


@dataclass(frozen=True)
class MemberFault:
    """A member that cannot be used."""

    number: int  # from 1
    reason: str
    name: str  # may be a person's name


Entry = Sample | MemberFault | IgnoredMember


@dataclass(frozen=True)
class TarIndex:
    """The content of a tar file."""

    samples: tuple[Sample, ...] = ()
    faults: tuple[MemberFault, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)  # members by suffix

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> TarIndex:
        """The entries of `scan_tar`, by kind."""
        entries = list(entries)
        return cls(
            tuple(entry for entry in entries if isinstance(entry, Sample)),
            tuple(entry for entry in entries if isinstance(entry, MemberFault)),
            Counter(entry.suffix for entry in entries if isinstance(entry, IgnoredMember)),
        )


@dataclass(frozen=True)
class _Member:
    """A member that is an image or a text."""

    number: int  # from 1
    key: str
    suffix: str  # "png", "view0.png" or "txt", in lower case
    info: tarfile.TarInfo


def index_tar(file: Path) -> TarIndex:
    """The content of a local tar file; read once, then taken from the cache until the file changes.

    Raises: OSError if it cannot be opened.
    """
    status = file.stat()
    key = disk_cache.key("tar", _VERSION, str(file.resolve()), status.st_size, status.st_mtime_ns)
    cached = disk_cache.read("shards", key)
    if cached is not None:
        return _load(cached.tobytes())
    with file.open("rb") as stream:
        index = TarIndex.from_entries(scan_tar(stream, size=status.st_size))
    data = np.frombuffer(_dump(index), np.uint8)
    about = {"what": f"where {len(index.samples)} samples lie in a tar file"}
    try:
        with disk_cache.writing("shards", key, data.shape, np.uint8, about) as array:
            array[:] = data
    except OSError:  # a full disk: the next run reads the tar file again
        pass
    return index


def scan_tar(stream: Any, *, size: int | None = None, skip: int = 0) -> Iterator[Entry]:
    """The samples of a tar file, in order, and the faults and ignored members between them.

    With `size`, that of a seekable file, members are (offset, size); without, they are bytes, and those of
    the first `skip` samples are replaced by b"".
    """
    try:
        mode: Any = "r:" if size is not None else "r|"
        archive = tarfile.open(fileobj=stream, mode=mode)  # noqa: SIM115 - the caller closes the stream
    except _TAR_ERRORS:
        yield MemberFault(1, "not a tar file, or an empty one", "")
        return
    yield from _group_members(archive, size, skip)


def _group_members(archive: tarfile.TarFile, size: int | None, skip: int) -> Iterator[Entry]:
    family = SampleFamily()
    keys: set[str] = set()
    yielded = 0  # samples
    for member in _members(archive, size):
        if not isinstance(member, _Member):
            yield member
            continue
        # The members of a sample are adjacent. If they are not, which belong together is unknown.
        if member.key in keys and not family.has_room(member.key, member.suffix):
            yield MemberFault(member.number, "duplicate key", f"{member.key}.{member.suffix}")
            continue
        if not family.is_related(member.key):
            entries = family.close()
            yielded += sum(isinstance(entry, Sample) for entry in entries)
            yield from entries
        keys.add(member.key)
        position = family.open(member.key, member.number)
        content = _read_member(archive, member.info, size, with_bytes=yielded + position >= skip)
        if content is None:
            yield MemberFault(member.number, "cut tar", member.info.name)
            break
        family.samples[member.key].members[member.suffix] = content
    yield from family.close()


def _members(archive: tarfile.TarFile, size: int | None) -> Iterator[_Member | MemberFault | IgnoredMember]:
    """Every member but folders; ends at the first fault of the tar file itself."""
    number, offset = 0, -1
    while True:
        number += 1
        try:
            info = (plain_member(archive) if size is not None and number > 1 else None) or archive.next()
        except _TAR_ERRORS:
            yield MemberFault(number, "cut tar", "")
            return
        if info is None:
            if size is not None and archive.offset + tarfile.BLOCKSIZE > size:
                yield MemberFault(number, "cut tar", "")  # a complete one ends with blocks of zeros
            return
        archive.members.clear()  # type: ignore[attr-defined]  # or it would hold every member of the file
        if info.offset <= offset or info.size < 0:  # a negative size would read the same members forever
            yield MemberFault(number, "broken tar", "")
            return
        offset = info.offset
        if not info.isdir():
            yield _classify(info, number)


def _classify(info: tarfile.TarInfo, number: int) -> _Member | MemberFault | IgnoredMember:
    name = info.name.removeprefix("./")
    folder, _, file = name.rpartition("/")
    stem, suffix = split_name(file)
    last_suffix = file.lower().rpartition(".")[2]
    if reason := _unsafe_reason(info, name):
        return MemberFault(number, reason, name)
    if not suffix:
        return IgnoredMember(last_suffix if last_suffix in REPORTABLE_SUFFIXES else OTHER_SUFFIX)
    if info.size > (_MAX_IMAGE_BYTES if last_suffix in IMAGE_SUFFIXES else _MAX_TEXT_BYTES):
        return MemberFault(number, "member too large", name)
    return _Member(number, f"{folder}/{stem}" if folder else stem, suffix, info)


def _unsafe_reason(info: tarfile.TarInfo, name: str) -> str:
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
        return "link in tar" if info.islnk() or info.issym() else "device or other special member in tar"
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or name[1:2] == ":":
        return "member name leads out of the tar"
    return ""


def _read_member(archive: tarfile.TarFile, info: tarfile.TarInfo, size: int | None, with_bytes: bool) -> Any:
    """The member's (offset, size), or its bytes; None if the file ends before it does."""
    if size is not None:
        return (info.offset_data, info.size) if info.offset_data + info.size <= size else None
    try:
        reader = archive.extractfile(info)  # reads from the stream; nothing is written
        data = reader.read() if reader is not None else b""
    except _TAR_ERRORS:
        return None
    if len(data) != info.size:  # also if the bytes are dropped, or a cut shard would count one sample more
        return None
    return data if with_bytes else b""


def _dump(index: TarIndex) -> bytes:
    samples = [[sample.key, sample.number, sample.members] for sample in index.samples]
    faults = [[fault.number, fault.reason, fault.name] for fault in index.faults]
    return json.dumps([samples, faults, index.ignored]).encode("ascii")


def _load(data: bytes) -> TarIndex:
    samples, faults, ignored = json.loads(data)
    return TarIndex(
        tuple(Sample(*fields) for fields in samples),
        tuple(MemberFault(*fields) for fields in faults),
        ignored,
    )


def expand_shards(pattern: str) -> list[str]:
    """The names that `shard-{000..099}.tar` or `{train,test}.tar` expands to, as in a shell."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    if match[3] is not None:
        words = match[3].split(",")
    else:
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        words = [f"{number:0{width}d}" for number in range(first, last + 1)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for word in words for name in expand_shards(f"{head}{word}{tail}")]
