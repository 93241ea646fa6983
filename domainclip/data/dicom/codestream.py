"""The header of a compressed frame, read before a decoder allocates memory for it [ITU-T T.81, T.87, T.800].

Legend: c components.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

_SIZ = b"\xff\x4f\xff\x51"  # begins every JPEG 2000 codestream, also inside a JP2 file
_CAP = b"\xff\x50"  # its marker of extended capabilities: high throughput
_RLE_SEGMENTS = b"\0\0\0\x40\0\0\0"  # after the number of segments: the offset of the first, 64
_HUFFMAN, _ARITHMETIC_TABLE, _SCAN, _APP0, _APP14, _JPEG_LS = 0xC4, 0xCC, 0xDA, 0xE0, 0xEE, 0xF7
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), _JPEG_LS)) - {_HUFFMAN, 0xC8, _ARITHMETIC_TABLE}
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_KINDS = {0xC0: "baseline", 0xC1: "extended", 0xC3: "lossless", _JPEG_LS: "JPEG-LS"}
Kind = Literal["baseline", "extended", "lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "RLE", "other JPEG", ""]


@dataclass(frozen=True)
class Codestream:
    """What a stream declares; zeros for one of another kind."""

    kind: Kind = ""
    precision: int = 0  # bits of a sample
    rows: int = 0
    columns: int = 0
    components: tuple[int, ...] = ()  # (c,) their identifiers
    coding: tuple[tuple[int, int], ...] = ()  # (c,) their sampling factors and quantization tables
    segments: int = 0  # of RLE: one for each byte of a pixel
    is_jfif: bool = False
    adobe_transform: int | None = None  # of Adobe's marker: 0 none, 1 YCbCr

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.rows * self.columns

    def is_rgb(self, stated: bool) -> bool:
        """Whether three components of a lossy JPEG are RGB; else they are YCbCr.

        The rule of libjpeg: its markers decide, then the identifiers. Others than 1, 2, 3 are RGB where that
        is `stated` and all components are coded alike, which encoders never do with chroma.
        """
        if self.is_jfif:
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        return self.has_letters or (stated and self.components != (1, 2, 3) and len(set(self.coding)) == 1)

    @property
    def has_letters(self) -> bool:
        """Whether the components are called R, G and B."""
        return self.components in ((82, 71, 66), (114, 103, 98))


def read_codestream(frame: bytes) -> Codestream:
    """The header of a JPEG, JPEG-LS or JPEG 2000 stream, the largest size where there are several."""
    position = frame.find(_SIZ)
    if 0 <= position <= len(frame) - 42:
        return _jpeg_2000(frame, position)
    if len(frame) >= 64 and 1 <= frame[0] <= 15 and frame[1:8] == _RLE_SEGMENTS:
        return Codestream(kind="RLE", segments=frame[0])
    return _jpeg(frame) if frame.startswith(b"\xff\xd8") else Codestream()


def _jpeg_2000(frame: bytes, position: int) -> Codestream:
    right, bottom, left, top = struct.unpack_from(">4I", frame, position + 8)
    (count,) = struct.unpack_from(">H", frame, position + 40)
    depth = frame[position + 42] if len(frame) > position + 42 else 7
    end = position + 4 + int.from_bytes(frame[position + 4 : position + 6], "big")
    return Codestream(
        kind="HTJ2K" if frame[end : end + 2] == _CAP else "JPEG 2000",
        precision=(depth & 0x7F) + 1,
        rows=max(0, bottom - top),
        columns=max(0, right - left),
        components=tuple(range(min(count, 16384))),
    )


def _jpeg(frame: bytes) -> Codestream:
    found, is_jfif, adobe = Codestream(kind="other JPEG"), False, None
    for marker, start, end in _segments(frame):
        body = frame[start:end]
        if marker in _FRAME_MARKERS and len(body) >= 6:
            precision, rows, columns, count = struct.unpack_from(">BHHB", body)
            components, factors, tables = (tuple(body[6 + at : 6 + 3 * count : 3]) for at in range(3))
            kind = _KINDS.get(marker, "other JPEG")
            if rows * columns >= found.pixels:
                coding = tuple(zip(factors, tables, strict=False))
                found = Codestream(kind, precision, rows, columns, components, coding)  # type: ignore[arg-type]
        elif marker == _APP0:
            is_jfif = is_jfif or body.startswith(b"JFIF\0")
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
    return replace(found, is_jfif=is_jfif, adobe_transform=adobe)


def _segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, up to the first scan."""
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # padding before a marker
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        else:
            length = int.from_bytes(frame[position + 2 : position + 4], "big")
            yield marker, position + 4, position + 2 + length
            if marker == _SCAN:  # the compressed pixels begin; no markers follow
                return
            position += 2 + length
