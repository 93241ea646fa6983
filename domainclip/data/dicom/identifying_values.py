"""The values of a DICOM header that identify a person, to be searched in the report of the same study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from domainclip.data.dicom import reading
from domainclip.data.text.identifiers import NOTHING_KNOWN, KnownValues
from domainclip.errors import UnreadableImage

_NAMES = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "ReferringPhysicianName"),
    *("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName"),
)
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "IssuerOfPatientID")
_DATES = ("PatientBirthDate",)
_MIN_LETTERS, _MIN_NUMBER = 3, 4


def identifying_values(path: str) -> KnownValues:
    """The names, numbers and dates of birth of the header of a file; none of a file without a header."""
    try:
        header = reading.read_header(Path(path), [*_NAMES, *_NUMBERS, *_DATES])
    except UnreadableImage:
        return NOTHING_KNOWN
    return KnownValues(
        names=_words([header.get(keyword, "") for keyword in _NAMES]),
        numbers=tuple(
            value
            for keyword in _NUMBERS
            if len(value := header.get(keyword, "").strip()) >= _MIN_NUMBER and re.search(r"\d", value)
        ),
        dates=tuple(date for keyword in _DATES for date in _date(header.get(keyword, ""))),
    )


def _words(names: Sequence[str]) -> tuple[str, ...]:
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", " ".join(names))
    return tuple(dict.fromkeys(word for word in words if len(word) >= _MIN_LETTERS))


def _date(text: str) -> list[tuple[int, int, int]]:
    try:
        date = datetime.strptime(re.sub(r"\D", "", text)[:8], "%Y%m%d")
    except ValueError:
        return []
    return [(date.year, date.month, date.day)]
