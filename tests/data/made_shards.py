"""Tar shards for tests, valid and hostile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

Member = tuple[str, bytes | tarfile.TarInfo]


def png(value: int, side: int = 6) -> bytes:
    """A small image of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (value % 256, value // 256 % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, members: Iterable[Member], **options: Any) -> Path:
    """A tar file of members; a member without content may be given as its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return path


def pair(key: str, value: int = 0, **columns: Any) -> list[Member]:
    """KEY.png with KEY.json of columns, or with KEY.txt without columns."""
    if columns:
        return [(f"{key}.png", png(value)), (f"{key}.json", json.dumps(columns).encode())]
    return [(f"{key}.png", png(value)), (f"{key}.txt", f"caption {key}".encode())]


def shards(folder: Path, sizes: Iterable[int], name: str = "train-{:03d}.tar") -> Path:
    """Shards with `sizes` pairs, each with another image and caption."""
    for shard, size in enumerate(sizes):
        members = [m for i in range(size) for m in pair(f"{shard}-{i}", 100 * shard + i)]
        tar(folder / name.format(shard), members)
    return folder


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    """The header of a link, device or other special member."""
    header = tarfile.TarInfo()
    header.type, header.linkname = kind, target
    return header
