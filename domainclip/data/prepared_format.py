"""File format of a prepared corpus: shards that are tar files or Arrow tables, and a manifest of them.

Equal rows give shards that are equal byte for byte. A folder is a prepared corpus once its manifest exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from domainclip.data.files import locations, tar
from domainclip.data.rows import Item, to_dataset
from domainclip.data.schema import PREPARED_MANIFEST, SPLITS
from domainclip.errors import DataError

FORMAT = "domainclip-prepared"
VERSION = 2
ShardFormat = Literal["tar", "arrow"]
_JSON_FIELDS = ("id", "texts", "language", "labels", "group", "truth", "meta")


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of a prepared corpus; None for any other folder.

    Raises: DataError for a manifest of another version, or an incomplete one.
    """
    try:
        manifest = json.loads((Path(folder) / PREPARED_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{folder}: written in version {manifest.get('version')} of the format; this release reads "
            f"{VERSION}: prepare the corpus again"
        )
    if fault := _fault(manifest):
        raise DataError(
            f"{folder}: its {PREPARED_MANIFEST} is incomplete ({fault}): prepare the corpus again"
        )
    return manifest


def _fault(manifest: dict[str, Any]) -> str:
    """The key of a manifest that is missing or has a wrong value; "" for a valid one."""
    if manifest.get("form") not in get_args(ShardFormat):
        return "form"
    if not isinstance(manifest.get("shards"), list):
        return "shards"
    kinds = {"file": str, "split": str, "bytes": int, "sha256": str}
    for number, shard in enumerate(manifest["shards"], start=1):
        wrong = [
            key
            for key, kind in kinds.items()
            if not isinstance(shard, dict) or not isinstance(shard.get(key), kind)
        ]
        if not wrong and shard["split"] not in SPLITS:
            wrong = ["split"]
        if wrong:
            return f"shard {number}, {wrong[0]}"
    return ""


def encode_shard(rows: Sequence[tuple[Item, str]], form: ShardFormat) -> bytes:
    """The bytes of a shard; each item holds the bytes of its images, and comes with their suffix."""
    return _tar(rows) if form == "tar" else _arrow([item for item, _ in rows])


def _tar(rows: Sequence[tuple[Item, str]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for item, suffix in rows:
            fields = {name: getattr(item, name) for name in _JSON_FIELDS}
            parts = {suffix: item.image["bytes"]}
            parts |= {f"view{number}.{suffix}": view["bytes"] for number, view in enumerate(item.views)}
            parts["json"] = json.dumps(fields, ensure_ascii=False).encode()
            if item.texts:  # for other programs; this one reads the .json
                parts["txt"] = item.texts[0].encode()
            for part, data in parts.items():
                member = tarfile.TarInfo(f"{item.id}.{part}")  # without owner and date
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
    """The items of a tar shard; an image is a location in it."""
    index = tar.index_tar(file)
    if index.faults:
        raise DataError(f"{file.name}: {index.faults[0].reason}: prepare the corpus again")
    with file.open("rb") as stream:
        for sample in index.samples:
            offset, size = sample.members["json"]
            fields = json.loads(os.pread(stream.fileno(), size, offset))
            images = [
                {"path": locations.join_location(str(file), {"offset": at, "size": size}), "bytes": None}
                for at, size in (
                    sample.members[suffix]
                    for suffix in (sample.image_suffix, *sample.view_suffixes)
                    if suffix
                )
            ]
            yield Item(
                **fields,
                image=images[0],
                views=images[1:],
                split=split,
                location=f"{file.name} {fields['id']}",
            )


def file_sha256(file: Path) -> str:
    """The sha256 of a whole file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_intact(folder: Path, shard: dict[str, Any]) -> bool:
    """Whether the file of a shard has the size and the sha256 of its manifest entry."""
    try:
        file = folder / shard["file"]
        return bool(file.stat().st_size == shard["bytes"] and file_sha256(file) == shard["sha256"])
    except OSError:
        return False


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file atomically, also with respect to a power cut."""
    # Processes of two machines may have one number.
    draft = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
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
