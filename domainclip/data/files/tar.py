"""Tar files of samples, `KEY.jpg` beside `KEY.txt` or `KEY.json`, as WebDataset lays them out.

Nothing is ever extracted, followed or run: members are bytes at a place, and only pictures and texts are
read. A tar file may come from anyone, so whatever else stands in it is counted and passed over.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from domainclip import disk_cache

IMAGE_SUFFIXES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "tif",
    "tiff",
    "gif",
    "bmp",
    "jp2",
    "avif",
    "ppm",
    "dcm",
    "fits",
)
TEXT_SUFFIXES = ("txt", "json", "cls")
CODE_SUFFIXES = ("pkl", "pickle", "pyd", "pth", "pt", "py", "so", "joblib")  # what others unpickle or import
# Suffixes that may be told of. Behind a dot may stand anything, as in a.DOE_JANE: all else is "other".
_OTHER_SUFFIXES = """
    npy npz mat h5 hdf5 parquet csv tsv jsonl yaml yml xml html md pdf doc docx log bin zip gz mp4 avi mov
    webm mkv wav mp3 flac ogg nii nrrd heic svg eps psd raw jfif fit fz dicom
"""
REPORTABLE_SUFFIXES = frozenset((*IMAGE_SUFFIXES, *TEXT_SUFFIXES, *CODE_SUFFIXES, *_OTHER_SUFFIXES.split()))
OTHER_SUFFIX = "other"
_VIEW_SUFFIX = re.compile(
    r"view\d+\.(" + "|".join(IMAGE_SUFFIXES) + ")"
)  # further pictures of a sample, ours
_MAX_BYTES = {True: 2**30, False: 2**24}  # bytes of a picture, of a text
_VERSION = 2
# All that tarfile has been seen to raise on broken files.
_TAR_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, EOFError, MemoryError)


@dataclass(frozen=True)
class Sample:
    """Members that share a key; each part is (offset, size) in the file, or its bytes in a stream."""

    key: str
    number: int  # of its first member, from 1
    parts: dict[str, Any]  # by suffix

    @property
    def picture(self) -> str | None:
        """The suffix of its picture."""
        return next((suffix for suffix in IMAGE_SUFFIXES if suffix in self.parts), None)

    @property
    def views(self) -> list[str]:
        """The suffixes of its further pictures, in order."""
        found = [suffix for suffix in self.parts if _VIEW_SUFFIX.fullmatch(suffix)]
        return sorted(found, key=lambda suffix: int(suffix[4:].partition(".")[0]))


@dataclass
class TarIndex:
    """What a tar file holds."""

    samples: list[Sample] = field(default_factory=list)
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # number of the member, reason, name
    unread: Counter[str] = field(default_factory=Counter)  # by suffix, or OTHER: members of other kinds


def index_tar(file: Path) -> TarIndex:
    """What a local tar file holds; read once, then kept in the cache until the file changes.

    Raises: OSError when it cannot be opened.
    """
    facts = file.stat()
    name = disk_cache.key("tar", _VERSION, str(file.resolve()), facts.st_size, facts.st_mtime_ns)
    kept = disk_cache.read("shards", name)
    if kept is not None:
        return _load(kept.tobytes())
    found = TarIndex()
    with file.open("rb") as stream:
        found.samples = list(scan_tar(stream, found, size=facts.st_size))
    data = np.frombuffer(_dump(found), np.uint8)
    about = {"what": f"where {len(found.samples)} samples lie in a tar file"}
    try:
        with disk_cache.writing("shards", name, data.shape, np.uint8, about) as array:
            array[:] = data
    except OSError:  # a full disk costs the next run a second look, no more
        pass
    return found


def scan_tar(stream: Any, found: TarIndex, *, size: int | None = None, skip: int = 0) -> Iterator[Sample]:
    """The samples of a tar file, in order; what is no part of one goes into `found`.

    With `size`, that of a file that can be sought in, parts are places; without, they are bytes, and the
    bytes of the first `skip` samples are not kept.
    """
    current: Sample | None = None
    met: set[str] = set()
    done = 0
    try:
        mode: Any = "r:" if size is not None else "r|"
        archive = tarfile.open(fileobj=stream, mode=mode)  # noqa: SIM115 - the stream is not ours to close
    except _TAR_ERRORS:
        found.bad.append((1, "not a tar file, or an empty one", ""))
        return
    for number, member in _members(archive, found, size):
        key, suffix = _key_and_suffix(member, number, found)
        if not suffix:
            continue
        if current is None or key != current.key:
            if current is not None and current.parts:
                yield current
                done += 1
            current = Sample(key, number, {})
        # Parts of one sample stand together. Of those that do not, nobody can say what belongs to what.
        if suffix in current.parts or (key in met and not current.parts):
            found.bad.append((number, "duplicate key", f"{key}.{suffix}"))
            continue
        met.add(key)
        part = _read_part(archive, member, size, keep=done >= skip)
        if part is None:
            found.bad.append((number, "cut tar", member.name))
            break
        current.parts[suffix] = part
    if current is not None and current.parts:
        yield current


def _members(
    archive: tarfile.TarFile, found: TarIndex, size: int | None
) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """Every member with its number; ends at the first fault, which is noted."""
    number, before = 0, -1
    while True:
        number += 1
        try:
            member = archive.next()
        except _TAR_ERRORS:
            found.bad.append((number, "cut tar", ""))
            return
        if member is None:
            if size is not None and archive.offset + tarfile.BLOCKSIZE > size:
                found.bad.append((number, "cut tar", ""))  # a whole one ends with blocks of zeros
            return
        archive.members.clear()  # type: ignore[attr-defined]  # or it would remember every member of the file
        if member.offset <= before or member.size < 0:  # a negative size would lead round in circles
            found.bad.append((number, "broken tar", ""))
            return
        before = member.offset
        yield number, member


def _key_and_suffix(member: tarfile.TarInfo, number: int, found: TarIndex) -> tuple[str, str]:
    """The key of a member and what stands behind its first dot, in small letters; "" when it is not read."""
    name = member.name.removeprefix("./")
    if member.isdir():
        return name, ""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    suffix = suffix.lower()
    kind = suffix.rpartition(".")[2]
    known = suffix in IMAGE_SUFFIXES or suffix in TEXT_SUFFIXES or _VIEW_SUFFIX.fullmatch(suffix)
    if reason := _unsafe_reason(member, name):
        found.bad.append((number, reason, name))
    elif not stem or not known:
        found.unread[kind if kind in REPORTABLE_SUFFIXES else OTHER_SUFFIX] += 1
    elif member.size > _MAX_BYTES[kind in IMAGE_SUFFIXES]:
        found.bad.append((number, "member too large", name))
    else:
        return f"{folder}/{stem}" if folder else stem, suffix
    return name, ""


def _unsafe_reason(member: tarfile.TarInfo, name: str) -> str:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        return "link in tar" if member.islnk() or member.issym() else "device or other special member in tar"
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or name[1:2] == ":":
        return "member name leads out of the tar"
    return ""


def _read_part(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int | None, keep: bool) -> Any:
    """Where the member lies, or its bytes; None when the file ends before it does."""
    if size is not None:
        return (member.offset_data, member.size) if member.offset_data + member.size <= size else None
    try:
        opened = archive.extractfile(member)  # a reader over the stream: nothing is written
        data = opened.read() if opened is not None else b""
    except _TAR_ERRORS:
        return None
    if len(data) != member.size:  # also where it is not kept, or a cut shard would count one sample more
        return None
    return data if keep else b""


def _dump(found: TarIndex) -> bytes:
    samples = [[one.key, one.number, one.parts] for one in found.samples]
    return json.dumps([samples, found.bad, found.unread]).encode("ascii")


def _load(data: bytes) -> TarIndex:
    samples, bad, unread = json.loads(data)
    return TarIndex([Sample(*one) for one in samples], [tuple(one) for one in bad], Counter(unread))


def expand_shards(pattern: str) -> list[str]:
    """`shard-{000..099}.tar` and `{train,test}.tar` written out, as a shell does."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if found is None:
        return [pattern]
    if found[3] is not None:
        words = found[3].split(",")
    else:
        first, last, wide = int(found[1]), int(found[2]), len(found[1])
        words = [f"{number:0{wide}d}" for number in range(first, last + 1)]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [name for word in words for name in expand_shards(f"{head}{word}{tail}")]
