"""The element of the pixel data, of which a header reader needs the length and the beginning."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pydicom.dataset import FileDataset

_TAG = (0x7FE0, 0x0010)
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 2**32 - 1
_HEAD_BYTES = 2**17  # contain the table of offsets, and the header of the first frame


@dataclass(frozen=True)
class PixelData:
    """What a file shows of its pixel data without reading them."""

    head: bytes = b""  # their beginning
    length: int = 0  # bytes; 0 for unknown
    fragments: int | None = None  # of compressed pixels: a frame has one or more


def read_pixel_element(stream: BinaryIO, dataset: FileDataset) -> PixelData:
    """The pixel data at the position of a stream that was read up to them; empty if there are none."""
    implicit, little_endian = dataset.original_encoding
    order: Literal["little", "big"] = "big" if little_endian is False else "little"
    start = stream.read(8 if implicit else 12)
    if (int.from_bytes(start[:2], order), int.from_bytes(start[2:4], order)) != _TAG:
        return PixelData()
    length, position = int.from_bytes(start[-4:], order), stream.tell()
    head = stream.read(_HEAD_BYTES)
    if length != _UNDEFINED and _tag(head) != _ITEM:
        return PixelData(head, length)
    stream.seek(position)
    return PixelData(head, 0, _count_fragments(stream))


def _count_fragments(stream: BinaryIO) -> int:
    count = -1  # the first item is the table of offsets
    while (start := stream.read(8)) and _tag(start) == _ITEM:
        count += 1
        stream.seek(int.from_bytes(start[4:], "little"), io.SEEK_CUR)
    return max(0, count)


def _tag(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
