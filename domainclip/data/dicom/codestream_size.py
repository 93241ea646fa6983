"""Pixel count of a compressed frame, before a decoder allocates memory for it [ITU-T T.81, T.87, T.800]."""

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
    """Columns times rows in the header of a JPEG, JPEG-LS or JPEG 2000 stream; 0 if there is none."""
    position = frame.find(_SIZ)
    if 0 <= position <= len(frame) - 24:
        right, bottom, left, top = struct.unpack_from(">4I", frame, position + 8)
        return max(0, int(right) - int(left)) * max(0, int(bottom) - int(top))
    return _jpeg_pixel_count(frame) if frame.startswith(b"\xff\xd8") else 0


def _jpeg_pixel_count(frame: bytes) -> int:
    """The largest size in the markers of a JPEG or JPEG-LS stream."""
    position, largest = 2, 0
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # padding before a marker
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker == 0xDA:  # the compressed pixels begin; no markers follow
            break
        else:
            if marker in _SIZE_MARKERS:
                rows, columns = struct.unpack_from(">HH", frame, position + 5)
                largest = max(largest, int(rows) * int(columns))
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return largest
