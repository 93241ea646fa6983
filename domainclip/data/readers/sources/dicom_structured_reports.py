"""The text of a structured report, its concept names as headings [DICOM PS3.3 C.17.3; PS3.16 TID 2000]."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from domainclip.data.dicom import attributes
from domainclip.data.dicom.reading import read_dicom
from domainclip.data.text import report_headings
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
            return _first(dataset, "StudyInstanceUID"), "\n".join(lines)
        except Exception:  # pydicom raises arbitrary exceptions on broken items
            raise UnreadableImage(str(path), "a report whose ContentSequence is broken") from None


def _texts(item: Dataset, heading: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every text below an item, with its heading."""
    if depth > _DEPTH:
        return
    for below in attributes.items(item, "ContentSequence"):
        if _first(below, "RelationshipType") in _CONTEXT:
            continue
        name, kind = _concept(below), _first(below, "ValueType")
        if kind == "TEXT":
            # A text outside any section is a section of that name.
            words = " ".join(str(below.get("TextValue") or "").split())
            if words:
                yield heading or name, words
        yield from _texts(below, name if kind == "CONTAINER" and name else heading, depth + 1)


def _concept(item: Dataset) -> str:
    """The name of a concept as a heading; where it is not a usual one, that of the section of its code."""
    names = attributes.items(item, "ConceptNameCodeSequence")
    if not names:
        return ""
    meaning = str(names[0].get("CodeMeaning") or "").strip()
    section = report_headings.SECTION_OF_CODE.get(_first(names[0], "CodeValue"))
    return meaning if section is None or report_headings.is_known(meaning) else section.capitalize()


def _first(item: Dataset, keyword: str) -> str:
    return next(iter(attributes.text_values(item, keyword)), "")
