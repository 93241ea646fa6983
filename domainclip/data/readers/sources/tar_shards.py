"""The shards that a path means, and the rows in them: on this machine, or behind https:// and hf://."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from domainclip.data.files import corpus_folder, locations, remote, tar
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.row_captions import cell_text
from domainclip.data.rows import SourceRow
from domainclip.data.splits import is_split, parse_split
from domainclip.errors import DataError

_URL = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


@dataclass(frozen=True)
class ShardFile:
    """One shard."""

    address: str  # a path or an address
    name: str  # as ids and messages use it
    number: int  # from 1
    split: str | None = None  # that its name or folder says

    @property
    def remote(self) -> bool:
        """Whether it lies on another machine."""
        return bool(_URL.match(self.address))


def list_shards(path: str, splits: bool = True) -> list[ShardFile]:
    """The shards of a folder, a file or a pattern such as `shard-{000..099}.tar`, in order.

    With `splits`, each with the split that its name or folder says, as train-000.tar or val/000.tar do.

    Raises: DataError for an address that is not read, for shards that are not there, and for names that do
        not say clearly what is trained on.
    """
    if scheme := _URL.match(path):
        _refuse_scheme(path, scheme[1].lower())
        named = _apart(tar.expand_shards(path))
    else:
        named = _local(path)
    found = [(where, name, _split(name) if splits else None) for where, name in named]
    silent = [name for _, name, split in found if split is None]
    if 0 < len(silent) < len(found):  # what names no split would be trained on, whatever it is
        raise DataError(
            f"{path}: {len(silent)} of {len(found)} shards name no split, as {silent[0]}, but the others do: "
            "name one in the name or folder of each, as in train-000.tar or val/000.tar"
        )
    return [
        ShardFile(where, name, number, split) for number, (where, name, split) in enumerate(found, start=1)
    ]


def _apart(addresses: list[str]) -> list[tuple[str, str]]:
    """Addresses with their names: what stands behind the folder that all share."""
    folders = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
    shared = sum(1 for _ in takewhile(lambda held: len(set(held)) == 1, folders))
    return [(address, "/".join(address.split("/")[shared:])) for address in addresses]


def _split(name: str) -> str | None:
    """The split that the name of a shard says, or else the nearest of its folders that says one.

    Raises: DataError when it says two.
    """
    parts = name.split("/")[::-1]
    for at, part in enumerate(parts):
        words = {parse_split(word, name) for word in re.split(r"[^A-Za-z]+", part) if is_split(word)}
        if not words:
            continue
        # A folder "dev-kit" yields to the name of its shard; a folder "val" means what it says.
        words |= {parse_split(folder, name) for folder in parts[at + 1 :] if is_split(folder)}
        if len(words) > 1:
            raise DataError(
                f"shard {name}: says {' and '.join(sorted(words))}: let its name and its folder say one split"
            )
        return words.pop()
    return None


def _local(path: str) -> list[tuple[str, str]]:
    if Path(path).is_dir():
        root = Path(path).resolve()
        found = [
            file.relative_to(root) for file in corpus_folder.walk_files(root) if file.suffix.lower() == ".tar"
        ]
        inside = [
            (corpus_folder.path_inside(root, str(name), f"shard {name}"), name.as_posix()) for name in found
        ]
        if not inside:
            raise DataError(f"{path}: no .tar file in this folder or below: check corpus.path")
        return [(str(file), name) for file, name in inside]
    # A real file whose name holds braces wins.
    names = [path] if Path(path).is_file() else tar.expand_shards(path)
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        gone = f"{len(missing)} of {len(names)} are missing"
        raise DataError(f"{missing[0]}: no such shard ({gone}): check corpus.path")
    top = os.path.commonpath([Path(name).resolve().parent for name in names])
    whole = [Path(name).resolve() for name in names]
    return [(str(file), file.relative_to(top).as_posix()) for file in whole]


def _refuse_scheme(path: str, scheme: str) -> None:
    if scheme in ("https", "hf") or path.startswith(remote.LOOPBACK):
        return
    raise DataError(
        f"corpus.path: {scheme}: is not read, and nothing is ever run: name a folder of .tar files, or a "
        "pattern such as shard-{000..099}.tar; it may begin with https:// or hf://"
    )


class _Opened:
    """The bytes of a shard in order; whatever a client of the network raises becomes one line."""

    def __init__(self, place: ShardFile) -> None:
        self.name = place.name
        self.stream = self._or_say("opened", remote.open_stream, place.address)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, size: int = -1) -> bytes:
        """As of a file; a lost connection was tried again several times by then."""
        return bytes(self._or_say("read", self.stream.read, size))

    def _or_say(self, what: str, call: Callable[..., Any], *given: Any) -> Any:
        try:
            return call(*given)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"shard {self.name}: cannot be {what}: {reason}") from None


def read_shard(place: ShardFile, log: ReadLog) -> list[SourceRow]:
    """The rows of a local shard; pictures are places in it, texts are read."""
    try:
        index = tar.index_tar(Path(place.address))
        with open(place.address, "rb") as stream:
            rows = [
                _source(sample, place, log, _Placed(place.address, stream.fileno()))
                for sample in index.samples
            ]
    except OSError as error:
        raise DataError(f"shard {place.name}: {error.strerror}: check corpus.path") from None
    log_shard(place, index, log)
    return [row for row in rows if row is not None]


def stream_shard(place: ShardFile, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
    """The rows of a shard as they come, from the `start`-th sample on; pictures are bytes.

    None stands in the place of a sample that cannot be used, so that places are those of the index.
    """
    number, others = 0, list[tar.Entry]()
    with _Opened(place) as data:
        try:
            for entry in tar.scan_tar(data, skip=start):
                if not isinstance(entry, tar.Sample):
                    others.append(entry)
                    continue
                if number >= start:
                    yield _source(entry, place, log, _Held())
                number += 1
        finally:  # whoever reads the last sample does not ask for the one after it
            log_shard(place, tar.TarIndex.from_entries(others), log)


def count_samples(place: ShardFile) -> int:
    """How many samples a shard holds; of a remote one, it is read through once."""
    if not place.remote:
        return len(tar.index_tar(Path(place.address)).samples)
    with _Opened(place) as data:
        return sum(isinstance(entry, tar.Sample) for entry in tar.scan_tar(data, skip=2**62))


def shard_sizes(found: list[ShardFile], log: ReadLog) -> list[int]:
    """How many samples each shard holds: as a sizes.json or manifest.json beside it says, or counted."""
    folders = dict.fromkeys(place.address.rpartition("/")[0] for place in found if place.remote)
    said = {shard: items for folder in folders for shard, items in _said(folder).items()}
    unknown = [place for place in found if place.address not in said]
    if unknown and found[0].remote:
        log.add_note(f"{len(unknown)} shards were read once to be counted: put a sizes.json beside them")
    return [said.get(place.address) or count_samples(place) for place in found]


def _said(folder: str) -> dict[str, int]:
    """By the whole address of a shard: equal names in two folders are two shards."""
    for name in ("sizes.json", "manifest.json"):
        try:
            with closing(remote.open_stream(f"{folder}/{name}")) as data:
                read = json.loads(data.read(2**24))
            rows = read if name == "sizes.json" else {one["file"]: one["items"] for one in read["shards"]}
            return {f"{folder}/{shard}": int(items) for shard, items in rows.items()}
        except Exception:  # not there, or not what it should be: the shards are counted
            continue
    return {}


def log_shard(place: ShardFile, index: tar.TarIndex, log: ReadLog) -> None:
    """What else stands in a shard, into the log."""
    for fault in index.faults:
        where, name = f"shard {place.number} member {fault.number}", f"{place.name}:{fault.name}"
        log.unusable.append(UnusableItem(where, fault.reason, name))
    for suffix, count in sorted(index.ignored.items()):
        why = "never read, for it can run code" if suffix in tar.CODE_SUFFIXES else "not read"
        kind = "of other kinds" if suffix == tar.OTHER_SUFFIX else f".{suffix}"
        log.add_note(f"shard {place.number}: {count} members {kind} {why}")


class _Placed:
    """Parts of a file on this machine."""

    def __init__(self, file: str, handle: int) -> None:
        self.file, self.handle = file, handle

    def text(self, part: tuple[int, int]) -> bytes:
        return os.pread(self.handle, part[1], part[0])

    def picture(self, part: tuple[int, int], name: str) -> dict[str, Any]:
        return {
            "path": locations.join_location(self.file, {"offset": part[0], "size": part[1]}),
            "bytes": None,
        }


class _Held:
    """Parts that are in memory."""

    def text(self, part: bytes) -> bytes:
        return part

    def picture(self, part: bytes, name: str) -> dict[str, Any]:
        return {"path": name, "bytes": part}


class _Unusable(Exception):
    """A sample that can be no pair, and why."""


def _source(sample: tar.Sample, place: ShardFile, log: ReadLog, parts: _Placed | _Held) -> SourceRow | None:
    """A sample as a row, or None and a line in the log."""
    where, name = f"shard {place.number} sample {sample.number}", f"{place.name}/{cell_text(sample.key)}"
    try:
        if sample.image_suffix is None:
            raise _Unusable("missing picture")
        values = _values(sample, parts)
    except _Unusable as error:
        log.unusable.append(UnusableItem(where, str(error), name))
        return None
    return SourceRow(
        values={**values, "key": cell_text(sample.key), "shard": place.name},
        location=where,
        image=parts.picture(sample.members[sample.image_suffix], name),
        name=name,
        split=place.split,
        views=tuple(parts.picture(sample.members[suffix], name) for suffix in sample.view_suffixes),
    )


def _values(sample: tar.Sample, parts: _Placed | _Held) -> dict[str, Any]:
    """Its .json by key, its .txt as `text`, its .cls as `label`."""
    values: dict[str, Any] = {}
    try:
        if "json" in sample.members:
            values = json.loads(parts.text(sample.members["json"]).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise _Unusable("its .json is no mapping")
        for suffix, column in (("txt", "text"), ("cls", "label")):
            if suffix in sample.members:
                values[column] = parts.text(sample.members[suffix]).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _Unusable("its text is not UTF-8") from None
    except (ValueError, RecursionError):
        raise _Unusable("broken .json") from None
    if not values:
        raise _Unusable("missing text")
    return values
