"""A prepared corpus behind an address: fetched once into the cache, each shard verified by its sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from domainclip import disk_cache
from domainclip.data import prepared_format
from domainclip.data.files import remote
from domainclip.data.schema import PREPARED_MANIFEST
from domainclip.errors import DataError, DomainclipError

_BLOCK = 2**23  # bytes that are read at once
_MAX_MANIFEST = 2**26  # bytes


def is_address(path: Path | str) -> bool:
    """Whether a path is an address, as s3://bucket/prepared."""
    return "://" in str(path)


def fetched_corpus(address: str) -> Path:
    """The folder of this machine with the files of a prepared corpus at an address.

    The manifest is read by every command; of a corpus that was prepared anew, all shards are fetched again.

    Raises: DataError when there is no prepared corpus, when it cannot be reached, or a shard differs from the
        manifest, or the disk of the cache is full; RecipeError for a missing library of the store.
    """
    address = address.rstrip("/")
    content = b"".join(_blocks(f"{address}/{PREPARED_MANIFEST}", _MAX_MANIFEST))
    name = disk_cache.key("prepared", address, hashlib.sha256(content).hexdigest())
    folder = disk_cache.find_files("shards", name)
    if folder is None:
        try:
            _fetch(address, content, name)
        except OSError as error:
            raise DataError(f"corpus.path: the cache cannot be written: {error.strerror}") from None
        folder = disk_cache.root() / "shards" / name
    return folder


def _fetch(address: str, manifest: bytes, name: str) -> None:
    shards = _shards(address, manifest)
    about = {"what": f"a prepared corpus of {len(shards)} shards, fetched from an address"}
    with disk_cache.writing_files("shards", name, about) as draft:
        for shard in shards:
            file = draft / Path(shard["file"]).name  # the name only, never a path out of the folder
            digest = hashlib.sha256()
            with file.open("wb") as stream:
                for block in _blocks(f"{address}/{file.name}", int(shard["bytes"]) + 1):
                    digest.update(block)
                    stream.write(block)
            if digest.hexdigest() != shard["sha256"]:
                raise DataError(f"corpus.path: shard {file.name} differs from the manifest: upload it again")
        (draft / PREPARED_MANIFEST).write_bytes(manifest)


def _shards(address: str, manifest: bytes) -> list[dict[str, Any]]:
    try:
        fields = json.loads(manifest)
        if fields["format"] == prepared_format.FORMAT:
            return [{key: shard[key] for key in ("file", "bytes", "sha256")} for shard in fields["shards"]]
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{address}: no {PREPARED_MANIFEST} of domainclip data prepare: set corpus.reader")


def _blocks(address: str, max_bytes: int) -> Iterator[bytes]:
    """The bytes of a file, a block at a time, at most `max_bytes`."""
    file = address.rpartition("/")[2]
    try:
        with closing(remote.open_stream(address)) as stream:
            while max_bytes > 0 and (block := stream.read(min(_BLOCK, max_bytes))):
                max_bytes -= len(block)
                yield block
    except DomainclipError:
        raise
    except Exception as error:  # clients raise errors of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"corpus.path: {file} cannot be read: {reason}") from None
