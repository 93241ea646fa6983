"""Image cells of a table: a file name, the bytes of a file, or bytes that are written out as text."""

from __future__ import annotations

import ast
import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from domainclip.data.text.cell_literals import is_encoded_image
from domainclip.data.text.cells import CellFault, cell_text

_DATA_URI = re.compile(r"data:[\w/.+-]*(?:;[\w=.+-]+)*,", re.IGNORECASE)
_PRINTED_BYTES = re.compile(r"""(?:b['"]|\{['"](?:bytes|path)['"]:)""")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MAX_NAME = 255  # bytes of a file name


def image_from_cell(cell: Any) -> dict[str, Any]:
    """{path, bytes} of a cell; both are None in an empty one.

    Bytes may be written out in base64, as a data URI, or as Python prints them.

    Raises: CellFault, which never quotes the cell, for a cell that holds neither a file name nor an image.
    """
    if isinstance(cell, str) and _PRINTED_BYTES.match(cell):
        cell = _printed(cell)
    if isinstance(cell, (list, tuple)) and len(cell) == 1:
        cell = cell[0]
    if isinstance(cell, Mapping):
        if not {"path", "bytes"} & set(cell):
            raise CellFault("a mapping without path and bytes, not an image")
        path, data = cell.get("path"), cell.get("bytes")
    else:
        path, data = (None, cell) if isinstance(cell, (bytes, bytearray)) else (cell, None)
    if isinstance(data, str):
        data = _from_base64(data)
    if data is not None and not isinstance(data, (bytes, bytearray)):
        raise CellFault("bytes of an image that are not bytes")
    if data is not None:
        return {"path": _inner_name(path), "bytes": bytes(data)}
    name = cell_text(path)
    if is_encoded_image(name):
        return {"path": None, "bytes": _from_base64(name)}
    return {"path": _file_name(name) or None, "bytes": None}


def _file_name(name: str) -> str:
    if match := _ADDRESS.match(name):
        raise CellFault(f"an address ({match[0].lower()}), not a file name: images are not downloaded")
    if 4 * len(name) > _MAX_NAME and any(
        len(part.encode(errors="replace")) > _MAX_NAME for part in re.split(r"[/\\]", name)
    ):
        raise CellFault("not a file name: too long")
    return name


def _inner_name(path: Any) -> str | None:
    """The name that an image has inside its table; it reaches no file."""
    try:
        return _file_name(cell_text(path)) or None
    except CellFault:
        return None


def _printed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise CellFault("bytes that are printed as text, and cut or cannot be read") from None


def _from_base64(text: str) -> bytes:
    match = _DATA_URI.match(text)
    digits = text[match.end() :] if match else text
    try:
        # Both alphabets are in use, and lines may be broken.
        plain = "".join(digits.split()).translate(str.maketrans("-_", "+/"))
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CellFault("an image in base64 that is cut or cannot be read") from None
    if not data:
        raise CellFault("an image in base64 that is empty")
    return data
