"""The text of a table, in its encoding; a file that is no text is named by its kind."""

from __future__ import annotations

import codecs
from pathlib import Path

from domainclip.errors import DataError

DEFAULT = "utf-8-sig"
# By byte order mark; that of UTF-32 begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 1 << 16
_CSV = "save it as CSV UTF-8"
_OTHER_KINDS = (
    (b"PK\x03\x04", f"is an Excel workbook or another zip file: {_CSV}, or name it .xlsx or unpack it"),
    (b"\xd0\xcf\x11\xe0", f"is a workbook of an old Excel (.xls): {_CSV}"),
    (b"PAR1", "is a Parquet file: name it .parquet"),
    (b"\x1f\x8b", "is compressed: unpack it with gunzip"),
    (b"version https://git-lfs", "is a pointer of Git LFS and not the table: fetch it with git lfs pull"),
    (b"<!DOCTYPE", "is a web page and not the table: download the file itself"),
    (b"<html", "is a web page and not the table: download the file itself"),
)


def read_text_file(file: Path, encoding: str = DEFAULT) -> tuple[str, str]:
    """The text without its byte order mark, and a note: a mark of UTF-16 outweighs the default encoding.

    Raises: DataError naming the file, the line and byte, and the remedy.
    """
    data = file.read_bytes()
    for magic, kind in _OTHER_KINDS:
        if data.startswith(magic):
            raise DataError(f"{file.name}: {kind}")
    note = ""
    if encoding == DEFAULT and (marked := next((name for mark, name in _MARKS if data.startswith(mark)), "")):
        encoding, note = marked, f"{file.name}: is read as {marked.upper()}, by its byte order mark"
    text = _decode(file.name, data, encoding).removeprefix("\ufeff")
    # The csv module of Python 3.11 would accept it as a character.
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file.name}: line {line} holds a NUL byte: {_nul_remedy(data)}")
    return text, note


def read_head(file: Path, encoding: str = DEFAULT) -> str:
    """The text of the first bytes of a file; a letter that they cut is left out.

    Raises: UnicodeDecodeError or LookupError for another encoding.
    """
    with file.open("rb") as stream:
        data = stream.read(_HEAD_BYTES)
    if encoding == DEFAULT:
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), DEFAULT)
    return codecs.getincrementaldecoder(encoding)().decode(data).removeprefix("\ufeff")


def _decode(name: str, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: line {line}, byte {error.start} is not {encoding.removesuffix('-sig').upper()}: "
            "save it as UTF-8, or name its encoding, as in corpus.options.encoding=cp1252"
        ) from None
    except LookupError:
        raise DataError(f'corpus.options.encoding: unknown encoding "{encoding}"') from None


def _nul_remedy(data: bytes) -> str:
    """Every second byte of UTF-16 is NUL, where the text is English."""
    first = data[:400]
    for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(first) > 1 and not any(first[offset::2]) and all(first[1 - offset :: 2]):
            return f"it may be UTF-16: set corpus.options.encoding={encoding}"
    return "the file is broken or not text"
