"""The form of a prepared corpus: shards that are tar files or Arrow tables, and a manifest that says all.

Shards are byte for byte the same for the same rows. A folder is a prepared corpus once its manifest stands.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from domainclip.data.files import locations, tar
from domainclip.data.rows import Item, to_dataset
from domainclip.data.schema import SPLITS
from domainclip.errors import DataError

FORMAT = "domainclip-prepared"
VERSION = 1
MANIFEST = "manifest.json"
ShardFormat = Literal["tar", "arrow"]
_TOLD = ("id", "texts", "language", "labels", "group", "meta")


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of a prepared corpus; None for a folder that is none.

    Raises: DataError for one of a later version.
    """
    try:
        read = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        return None
    if read.get("version") != VERSION:
        raise DataError(
            f"{folder}: prepared in version {read.get('version')} of the form, this reads {VERSION}"
        )
    if fault := _fault(read):
        raise DataError(f"{folder}: its {MANIFEST} is not whole ({fault}): prepare the corpus again")
    return read


def _fault(read: dict[str, Any]) -> str:
    """The key of a manifest that is not there or cannot be; nothing for a good one."""
    if read.get("form") not in get_args(ShardFormat):
        return "form"
    if not isinstance(read.get("shards"), list):
        return "shards"
    kinds = {"file": str, "split": str, "bytes": int, "sha256": str}
    for number, one in enumerate(read["shards"], start=1):
        lacking = [
            key
            for key, kind in kinds.items()
            if not isinstance(one, dict) or not isinstance(one.get(key), kind)
        ]
        if not lacking and one["split"] not in SPLITS:
            lacking = ["split"]
        if lacking:
            return f"shard {number}, {lacking[0]}"
    return ""


def encode_shard(rows: Sequence[tuple[Item, str]], form: ShardFormat) -> bytes:
    """The file of a shard; each row comes with the suffix of its pictures, whose bytes it holds."""
    return _tar(rows) if form == "tar" else _arrow([item for item, _ in rows])


def _tar(rows: Sequence[tuple[Item, str]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for item, suffix in rows:
            told = {name: getattr(item, name) for name in _TOLD}
            parts = {suffix: item.image["bytes"]}
            parts |= {f"view{number}.{suffix}": view["bytes"] for number, view in enumerate(item.views)}
            parts["json"] = json.dumps(told, ensure_ascii=False).encode()
            if item.texts:  # for other programs; ours read the .json
                parts["txt"] = item.texts[0].encode()
            for kind, data in parts.items():
                member = tarfile.TarInfo(f"{item.id}.{kind}")  # no owner, no date
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _arrow(items: Sequence[Item]) -> bytes:
    table = to_dataset(items).data.table.combine_chunks()
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def read_tar_shard(file: Path, split: str) -> Iterator[Item]:
    """The rows of a tar shard; pictures are places in it."""
    index = tar.index_tar(file)
    if index.faults:
        raise DataError(f"{file.name}: {index.faults[0].reason}: prepare the corpus again")
    with file.open("rb") as stream:
        for sample in index.samples:
            offset, size = sample.members["json"]
            told = json.loads(os.pread(stream.fileno(), size, offset))
            pictures = [
                {"path": locations.join_location(str(file), {"offset": at, "size": size}), "bytes": None}
                for at, size in (
                    sample.members[suffix]
                    for suffix in (sample.image_suffix, *sample.view_suffixes)
                    if suffix
                )
            ]
            yield Item(
                **told,
                image=pictures[0],
                views=pictures[1:],
                split=split,
                location=f"{file.name} {told['id']}",
            )


def file_sha256(file: Path) -> str:
    """Of a whole file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_intact(folder: Path, told: dict[str, Any]) -> bool:
    """Whether a shard has the size and the sha256 that are told of it."""
    try:
        file = folder / told["file"]
        return bool(file.stat().st_size == told["bytes"] and file_sha256(file) == told["sha256"])
    except OSError:
        return False


def write_atomically(file: Path, data: bytes) -> None:
    """A file that is there whole or not at all, also after a power cut."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
