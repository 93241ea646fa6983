"""The text of a structured report, its concept names as headings [DICOM PS3.3 C.17.3; PS3.16 TID 2000]."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from domainclip.data.dicom.reading import read_dicom
from domainclip.errors import UnreadableImage

_DEPTH = 32  # real reports have five levels; a hostile one would have a thousand
# The only elements that are read: names, dates and devices are in items of other types.
_ELEMENTS = ("StudyInstanceUID", "ContentSequence")
# Observer and acquisition: an observer's name may be there as plain text.
_CONTEXT = ("HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD")


def read_report_text(path: Path) -> tuple[str, str]:
    """The StudyInstanceUID of a report and its TEXT items in order, each section under its heading.

    `Findings: The lungs are clear.` is a line for a container of that name with one text in it, so that a
    caption policy can extract sections by name. Codes, numbers and references to images are not read.

    Raises: UnreadableImage for a file that is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_dicom(path, str(path), _ELEMENTS)
        try:
            sections: dict[str, list[str]] = {}
            for heading, words in _texts(dataset, "", 0):
                sections.setdefault(heading, []).append(words)
            lines = [f"{h}: {' '.join(texts)}" if h else " ".join(texts) for h, texts in sections.items()]
            return str(dataset.get("StudyInstanceUID") or ""), "\n".join(lines)
        except Exception as error:
            raise UnreadableImage(str(path), f"broken DICOM report ({type(error).__name__})") from None


def _texts(item: Dataset, heading: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every text below an item, with its heading."""
    if depth > _DEPTH:
        return
    for below in item.get("ContentSequence") or []:
        if below.get("RelationshipType") in _CONTEXT:
            continue
        name = _concept(below)
        if below.get("ValueType") == "TEXT":
            # A text outside any section is a section of that name.
            words = " ".join(str(below.get("TextValue") or "").split())
            if words:
                yield heading or name, words
        yield from _texts(
            below, name if below.get("ValueType") == "CONTAINER" and name else heading, depth + 1
        )


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence") or []
    return str(names[0].get("CodeMeaning") or "").strip() if names else ""
