"""The shards that a path names: files of this machine, or addresses behind https://, hf:// and in stores."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from domainclip.data.files import corpus_folder, object_stores, remote, tar
from domainclip.data.splits import is_split, parse_split
from domainclip.errors import DataError

_URL = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


@dataclass(frozen=True)
class ShardFile:
    """One shard."""

    address: str  # a path or a URL
    name: str  # in ids and messages
    number: int  # from 1
    split: str | None = None  # from its name or folder

    @property
    def remote(self) -> bool:
        """Whether it is on another machine."""
        return bool(_URL.match(self.address))


def list_shards(path: str, splits: bool = True) -> list[ShardFile]:
    """The shards of a folder, a file or a pattern such as `shard-{000..099}.tar`, in order.

    With `splits`, each with the split that its name or folder names, as train-000.tar or val/000.tar do.

    Raises: DataError for an address of another scheme, for missing shards, and when only some names contain
        a split.
    """
    if scheme := _URL.match(path):
        _refuse_scheme(path, scheme[1].lower())
        named = _remote_names(_in_store(path) or tar.expand_shards(path))
    else:
        named = _local_files(path)
    shards = [(address, name, _split_in(name) if splits else None) for address, name in named]
    without_split = [name for _, name, split in shards if split is None]
    # A shard without a split would be used for training, whatever it holds.
    if 0 < len(without_split) < len(shards):
        raise DataError(
            f"{path}: {len(without_split)} of {len(shards)} shards name no split, as {without_split[0]}, but "
            "the others do: name one in the name or folder of each, as in train-000.tar or val/000.tar"
        )
    return [
        ShardFile(address, name, number, split)
        for number, (address, name, split) in enumerate(shards, start=1)
    ]


def _in_store(path: str) -> list[str]:
    """The shards of a folder in an object store; none for a file, a pattern, or another address.

    Raises: DataError for a folder without any, or a store that cannot be reached.
    """
    if not object_stores.scheme_of(path) or path.endswith(".tar") or "{" in path:
        return []
    object_stores.check_address(path)
    try:
        files = object_stores.list_files(path, ".tar")
    except OSError as error:
        raise DataError(f"corpus.path: cannot be listed: {error}") from None
    if not files:
        raise DataError("corpus.path: no .tar file in this folder of the store or below: check it")
    return files


def _remote_names(addresses: list[str]) -> list[tuple[str, str]]:
    """Addresses with their names: the part after the folder that all share."""
    folders = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, folders))
    return [(address, "/".join(address.split("/")[shared:])) for address in addresses]


def _split_in(name: str) -> str | None:
    """The split in the name of a shard, or else in the nearest of its folders that names one.

    Raises: DataError when the name contains two.
    """
    parts = name.split("/")[::-1]
    for level, part in enumerate(parts):
        words = {parse_split(word, name) for word in re.split(r"[^A-Za-z]+", part) if is_split(word)}
        if not words:
            continue
        # A folder "dev-kit" yields to the name of its shard; a folder "val" is a split.
        words |= {parse_split(folder, name) for folder in parts[level + 1 :] if is_split(folder)}
        if len(words) > 1:
            raise DataError(
                f"shard {name}: names {' and '.join(sorted(words))}: name one split in its name and folder"
            )
        return words.pop()
    return None


def _local_files(path: str) -> list[tuple[str, str]]:
    if Path(path).is_dir():
        root = Path(path).resolve()
        files = [
            file.relative_to(root) for file in corpus_folder.walk_files(root) if file.suffix.lower() == ".tar"
        ]
        if not files:
            raise DataError(f"{path}: no .tar file in this folder or below: check corpus.path")
        return [
            (str(corpus_folder.path_inside(root, str(file), f"shard {file}")), file.as_posix())
            for file in files
        ]
    # A file whose real name contains braces takes precedence over a pattern.
    names = [path] if Path(path).is_file() else tar.expand_shards(path)
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        count = f"{len(missing)} of {len(names)} are missing"
        raise DataError(f"{missing[0]}: no such shard ({count}): check corpus.path")
    top = os.path.commonpath([Path(name).resolve().parent for name in names])
    resolved = [Path(name).resolve() for name in names]
    return [(str(file), file.relative_to(top).as_posix()) for file in resolved]


def _refuse_scheme(path: str, scheme: str) -> None:
    if scheme in ("https", "hf") or object_stores.scheme_of(path) or path.startswith(remote.LOOPBACK):
        return
    raise DataError(
        f"corpus.path: {scheme}: is not read, and no command is ever run: name a folder of .tar files, or a "
        "pattern such as shard-{000..099}.tar; it may begin with https://, hf://, s3://, gs:// or az://"
    )
