"""Names of columns in one form, whatever program wrote them, and names that look equal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from domainclip.errors import DataError

_INVISIBLE = re.compile("[\N{SOFT HYPHEN}\u200b-\u200f\u2060\ufeff]")
_SPACE = re.compile(r"\s")
_MAX_LENGTH = 200
_NO_NAME = re.compile(r".+\.(?:jpe?g|png|gif|tiff?|webp|bmp|dcm|fits)(?:\?.*)?", re.IGNORECASE)


def column_name(name: object) -> str:
    """A name without invisible characters and outer space, in composed form (NFC).

    Spreadsheets write no-break spaces, macOS decomposed letters, and other programs a byte order mark.
    """
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", str(name)))
    return _SPACE.sub(" ", text).strip()


def check_header(columns: Sequence[str], file: str) -> None:
    """Refuse a header that is none, or in which a name occurs twice.

    Raises: DataError that never quotes a cell of a table without a header.
    """
    for number, name in enumerate(columns, start=1):
        if len(name) > _MAX_LENGTH:
            raise DataError(
                f"{file}: column {number} has a name of {len(name)} characters: check that the first line "
                "holds the names of the columns, and its quotes"
            )
        if _NO_NAME.fullmatch(name):
            raise DataError(
                f"{file}: column {number} of the first line is a file name: add a line with the names of "
                "the columns"
            )
    first_of: dict[str, int] = {}
    for number, name in enumerate(columns, start=1):
        if first_of.setdefault(name, number) != number and name:
            raise DataError(
                f"{file}: columns {first_of[name]} and {number} of the first line have the same name: "
                "rename one"
            )


def describe_difference(name: str, other: str) -> str:
    """How two names differ that look equal: "its letter 1 is CYRILLIC SMALL LETTER ES"; "" for any others."""
    if len(name) != len(other):
        return ""
    differing = [
        (at, pair) for at, pair in enumerate(zip(name, other, strict=True), start=1) if len({*pair}) > 1
    ]
    if not differing or not all(ours.isascii() and not theirs.isascii() for _, (ours, theirs) in differing):
        return ""
    at, (_, letter) = differing[0]
    return f"its letter {at} is {unicodedata.name(letter, f'U+{ord(letter):04X}')}"
