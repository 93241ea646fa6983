"""The size that a compressed frame says, before a decoder takes memory for it [ITU-T T.81, T.87, T.800]."""

from __future__ import annotations

import struct

_SIZ = b"\xff\x4f\xff\x51"  # begins every JPEG 2000 codestream, also inside a JP2 file
_SIZE_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {
    0xC4,
    0xC8,
    0xCC,
}  # JPEG's SOF markers, and JPEG-LS's
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


def pixel_count(frame: bytes) -> int:
    """Columns times rows, as a JPEG, JPEG-LS or JPEG 2000 stream says; 0 where it says nothing."""
    at = frame.find(_SIZ)
    if 0 <= at <= len(frame) - 24:
        right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
        return max(0, int(right) - int(left)) * max(0, int(bottom) - int(top))
    return _jpeg_pixel_count(frame) if frame.startswith(b"\xff\xd8") else 0


def _jpeg_pixel_count(frame: bytes) -> int:
    at, most = 2, 0
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker == 0xDA:  # the pixels begin: what follows is no list of markers
            break
        else:
            if marker in _SIZE_MARKERS:
                rows, columns = struct.unpack_from(">HH", frame, at + 5)
                most = max(most, int(rows) * int(columns))
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return most
