"""The rows of tar shards: files of this machine, behind https:// and hf://, or in an object store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from domainclip.data.files import locations, remote, tar, tar_samples
from domainclip.data.files.column_names import column_name
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources.shard_files import ShardFile
from domainclip.data.rows import SourceRow
from domainclip.data.text.cells import cell_text
from domainclip.errors import DataError


class _ShardStream:
    """The bytes of a shard in order; any exception of a network client becomes one line."""

    def __init__(self, shard: ShardFile) -> None:
        self.name = shard.name
        self.stream = self._call("opened", remote.open_stream, shard.address)

    def __enter__(self) -> _ShardStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, size: int = -1) -> bytes:
        """As of a file; the client has already retried a lost connection several times."""
        return bytes(self._call("read", self.stream.read, size))

    def _call(self, action: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"shard {self.name}: cannot be {action}: {reason}") from None


def read_shard(shard: ShardFile, log: ReadLog) -> list[SourceRow]:
    """The rows of a local shard; images are locations in it, texts are read."""
    try:
        index = tar.index_tar(Path(shard.address))
        with open(shard.address, "rb") as stream:
            members = _FileMembers(shard.address, stream.fileno())
            rows = [_row(sample, shard, log, members) for sample in index.samples]
    except OSError as error:
        raise DataError(f"shard {shard.name}: {error.strerror}: check corpus.path") from None
    log_shard(shard, index, log)
    return [row for row in rows if row is not None]


def stream_shard(shard: ShardFile, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
    """The rows of a shard as they arrive, from the `start`-th sample on; images are bytes.

    None takes the place of an unusable sample, so that positions are those of the index.
    """
    number, others = 0, list[tar.Entry]()
    with _ShardStream(shard) as data:
        try:
            for entry in tar.scan_tar(data, skip=start):
                if not isinstance(entry, tar_samples.Sample):
                    others.append(entry)
                    continue
                if number >= start:
                    yield _row(entry, shard, log, _MemoryMembers())
                number += 1
        finally:  # a caller that has the last sample requests no further one
            log_shard(shard, tar.TarIndex.from_entries(others), log)


def count_samples(shard: ShardFile) -> int:
    """The number of samples of a shard; a remote one is read through once."""
    if not shard.remote:
        return len(tar.index_tar(Path(shard.address)).samples)
    with _ShardStream(shard) as data:
        return sum(isinstance(entry, tar_samples.Sample) for entry in tar.scan_tar(data, skip=2**62))


def shard_sizes(shards: list[ShardFile], log: ReadLog) -> list[int]:
    """The number of samples of each shard: from a sizes.json or manifest.json in its folder, or counted."""
    folders = dict.fromkeys(shard.address.rpartition("/")[0] for shard in shards if shard.remote)
    recorded = {address: size for folder in folders for address, size in _recorded_sizes(folder).items()}
    unknown = [shard for shard in shards if shard.address not in recorded]
    if unknown and shards[0].remote:
        log.add_note(f"{len(unknown)} shards were read once to be counted: put a sizes.json beside them")
    return [recorded.get(shard.address) or count_samples(shard) for shard in shards]


def _recorded_sizes(folder: str) -> dict[str, int]:
    """By the full address of a shard: equal names in two folders are two shards."""
    for name in ("sizes.json", "manifest.json"):
        try:
            with closing(remote.open_stream(f"{folder}/{name}")) as data:
                content = json.loads(data.read(2**24))
            if name == "manifest.json":
                content = {entry["file"]: entry["items"] for entry in content["shards"]}
            return {f"{folder}/{shard}": int(items) for shard, items in content.items()}
        except Exception:  # missing or invalid: the shards are counted
            continue
    return {}


def log_shard(shard: ShardFile, index: tar.TarIndex, log: ReadLog) -> None:
    """Log the faults of a shard and its members that are not read."""
    for fault in index.faults:
        location, name = f"shard {shard.number} member {fault.number}", f"{shard.name}:{fault.name}"
        log.unusable.append(UnusableItem(location, fault.reason, name))
    for suffix, count in sorted(index.ignored.items()):
        reason = (
            "never read, because they can run code" if suffix in tar_samples.CODE_SUFFIXES else "not read"
        )
        kind = f"KEY.{suffix}" if suffix.startswith("*") else f".{suffix}"
        log.add_count(
            count,
            f"tar members {'of other kinds' if suffix == tar_samples.OTHER_SUFFIX else kind} are {reason}",
        )


class _FileMembers:
    """Members in a file of this machine; each is its offset and size."""

    def __init__(self, file: str, handle: int) -> None:
        self.file, self.handle = file, handle

    def text(self, member: tuple[int, int]) -> bytes:
        return os.pread(self.handle, member[1], member[0])

    def image(self, member: tuple[int, int], name: str) -> dict[str, Any]:
        return {"path": locations.member_location(self.file, *member), "bytes": None}


class _MemoryMembers:
    """Members in memory; each is its bytes."""

    def text(self, member: bytes) -> bytes:
        return member

    def image(self, member: bytes, name: str) -> dict[str, Any]:
        return {"path": name, "bytes": member}


class _UnusableSample(Exception):
    """The reason why a sample is no pair."""


def _row(
    sample: tar_samples.Sample, shard: ShardFile, log: ReadLog, members: _FileMembers | _MemoryMembers
) -> SourceRow | None:
    """A sample as a row; None for an unusable one, which is logged."""
    location = f"shard {shard.number} sample {sample.number}"
    name = f"{shard.name}/{cell_text(sample.key)}"
    try:
        if sample.image_suffix is None:
            raise _UnusableSample("missing image")
        values = _values(sample, members)
    except _UnusableSample as error:
        log.unusable.append(UnusableItem(location, str(error), name))
        return None
    return SourceRow(
        values={**values, "key": cell_text(sample.key), "shard": shard.name},
        location=location,
        image=members.image(sample.members[sample.image_suffix], name),
        name=name,
        split=shard.split,
        views=tuple(members.image(sample.members[suffix], name) for suffix in sample.view_suffixes),
    )


def _values(sample: tar_samples.Sample, members: _FileMembers | _MemoryMembers) -> dict[str, Any]:
    """The values of its .json by key, its .txt as `text`, its .cls as `label`."""
    values: dict[str, Any] = {}
    try:
        if "json" in sample.members:
            values = json.loads(members.text(sample.members["json"]).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise _UnusableSample("its .json is not a mapping")
        values = {column_name(name): value for name, value in values.items()}
        for suffix, column in (("txt", "text"), ("cls", "label")):
            if suffix in sample.members:
                values[column] = members.text(sample.members[suffix]).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _UnusableSample("its text is not UTF-8") from None
    except (ValueError, RecursionError):
        raise _UnusableSample("broken .json") from None
    if not values:
        raise _UnusableSample("missing text")
    return values
