"""The kinds of files that lie beside the files of a corpus, by suffix and by content."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from domainclip.data.files import tar_samples

# Files of these kinds are left out without a note.
_COMMON = ".txt .csv .tsv .md .rst .json .jsonl .ndjson .parquet .yaml .yml .xml .html .pdf .log .py .db .ini"
_COMMON_SUFFIXES = frozenset(_COMMON.split())
_BEGINNINGS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"MZ": "program",
    b"\x7fELF": "program",
    b"SQLite format 3": "database",
    b"SIMPLE  =": "FITS",
}


def is_common(file: Path) -> bool:
    """Whether a file has the suffix of a text, a table or another common companion."""
    return file.suffix.lower() in _COMMON_SUFFIXES


def is_known(file: Path) -> bool:
    """Whether the suffix of a file is known; an unusual suffix can be a patient's name."""
    suffix = file.suffix.lower()
    return suffix[1:] in tar_samples.REPORTABLE_SUFFIXES or suffix in Image.registered_extensions()


def kind_of_content(head: bytes) -> str:
    """The kind of a file that begins with `head`: "PNG", "text" …; "" for an empty file or unknown bytes."""
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if not head or b"\0" in head:
        return ""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return "text" if error.start > len(head) - 4 else ""  # the end may cut a letter
    return "text" if any(byte >= 32 for byte in head) else ""
