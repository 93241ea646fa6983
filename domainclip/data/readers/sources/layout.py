"""The layout of a corpus: which reader reads it, as far as its files show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from domainclip.data import prepared_format
from domainclip.data.dicom import reading
from domainclip.data.files import corpus_folder, tables
from domainclip.errors import DataError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SAVED = ("dataset_dict.json", "dataset_info.json")  # of a data set that was saved with save_to_disk
_HEAD_BYTES = 512
_FILES_READ = 50  # files of a folder of which the first bytes are read
# Text and tables beside the images; reports and lists of files are no images either.
_NOT_IMAGES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".xml", ".html", ".pdf", ".yaml", ".yml")


@dataclass(frozen=True)
class Layout:
    """The reader of a corpus, the path that it starts from, and its options."""

    reader: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    table: Path | None = None  # that lists the items


def find_layout(path: str) -> Layout | None:
    """The layout of a file, a folder or a data set of the Hub; None where the files do not show it.

    Raises: DataError when there is no such file or folder.
    """
    place = Path(path)
    if not place.exists():
        if _HUB_ID.fullmatch(path):
            return Layout("hub", path)
        if "://" in path or "{" in path:
            return Layout("webdataset", path)
        raise DataError(
            f"corpus.path: {path} does not exist: name a table, a folder or a data set of the Hub"
        )
    if place.is_file():
        return _of_file(place)
    if prepared_format.read_manifest(place) is not None:
        return Layout("prepared", path)
    if any((place / name).is_file() for name in _SAVED):
        return Layout("hub", path)
    if table := _table(place):
        return _of_table(place, table)
    if any(place.glob("*.tar")):
        return Layout("webdataset", path)
    return Layout("dicom" if _mostly_dicom(_images(place)) else "folder", path)


def _of_file(file: Path) -> Layout | None:
    suffix = file.suffix.lower()
    if file.name.upper() == "DICOMDIR":
        return Layout("dicom", str(file))
    if suffix == ".tar":
        return Layout("webdataset", str(file))
    if suffix in (*tables.SUFFIXES, ".json", ".xlsx"):
        return _of_table(file.parent, file)
    return None


def _table(folder: Path) -> Path | None:
    """The metadata table of a folder, or the only table in it."""
    if (usual := tables.find_table(folder, ("metadata", "reports"))) is not None:
        return usual
    found = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in tables.SUFFIXES]
    return found[0] if len(found) == 1 else None


def _of_table(folder: Path, table: Path) -> Layout:
    """A table of DICOM files, or of other images; which one, the images in its folder show."""
    return Layout("dicom" if _mostly_dicom(_images(folder)) else "table", str(table), {}, table)


def _images(folder: Path) -> Iterator[Path]:
    return (file for file in corpus_folder.walk_files(folder) if file.suffix.lower() not in _NOT_IMAGES)


def _mostly_dicom(files: Iterator[Path]) -> bool:
    """Whether more than half of the first files are DICOM, by their content."""
    verdicts = []
    for file in islice(files, _FILES_READ):
        with suppress(OSError), file.open("rb") as stream:
            verdicts.append(reading.is_dicom(stream.read(_HEAD_BYTES)))
    return sum(verdicts) * 2 > len(verdicts)
