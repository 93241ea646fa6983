"""Attributes as values to divide items by: ages in years, dates as years, times in hours, codes in capitals.

The type is that of the DICOM keyword (its VR), or, in a table, the form of most values: 065Y [PS3.5 §6.2].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

from pydicom.datadict import dictionary_VR, tag_for_keyword

from domainclip.data.dicom.attributes import parse_number

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_DATE = re.compile(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})(?:\D.*|\d{2,}.*)?", re.ASCII)
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.\d+)?", re.ASCII)
_NUMBERS = frozenset(["DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"])
_NAMES = {"AS": "age", "DA": "date", "DT": "date", "TM": "time"}
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}


def type_of(name: str, values: Sequence[object]) -> str:
    """The VR of a column: that of its DICOM keyword, "AS" for one of ages in its form; "" for others."""
    tag = tag_for_keyword(name)
    if tag is not None:
        vr: str = dictionary_VR(tag).split(" or ")[0]
        return vr
    texts = [text for text in map(_text, values) if text]
    return "AS" if 2 * sum(bool(_AGE.fullmatch(text.upper())) for text in texts) > len(texts) else ""


def is_numeric(vr: str) -> bool:
    """Whether values of a VR are numbers, or ages, dates and times, which become numbers."""
    return vr in _NUMBERS or vr in _NAMES


def type_name(vr: str) -> str:
    """The noun for values of a numeric VR."""
    return _NAMES.get(vr, "number")


def typed_value(value: object, vr: str, name: str = "") -> object:
    """A value by its VR: a float in years or hours, or a code in capitals; unchanged where it is neither."""
    text = _text(value)
    if not text:
        return None
    if vr == "CS":
        code = text.upper()
        return _SEXES.get(code, code) if name == "PatientSex" else code
    if not is_numeric(vr):
        return value
    number = parse_value(text, vr)
    return text if number is None else number


def parse_value(text: str, vr: str) -> float | None:
    """The number of a text of a numeric VR: years, a year with its fraction, hours; None for another text."""
    if vr == "AS" and (age := _AGE.fullmatch(text.upper())):
        return round(int(age[1]) * _YEARS[age[2]], 4)
    if vr in ("DA", "DT"):
        return _year(text)
    if vr == "TM":
        time = _TIME.fullmatch(text)
        return None if time is None else round(sum(int(time[i + 1] or 0) / 60**i for i in range(3)), 4)
    return parse_number(text)


def _year(text: str) -> float | None:
    parts = _DATE.fullmatch(text)
    if parts is None:
        return None
    try:
        day = date(int(parts[1]), int(parts[2]), int(parts[3]))
    except ValueError:  # the 31st of June
        return None
    return round(day.year + (day.timetuple().tm_yday - 1) / 366, 4)


def _text(value: object) -> str:
    """The first of several values, which are separated as in DICOM, without its padding."""
    return "" if value is None else str(value).split("\\")[0].strip("\0 \t\r\n")
