"""Values of attributes, read from whatever a file contains: a value that breaks the standard raises nothing.

pydicom converts a value when it is accessed, and raises for one that its type does not allow. Here such a
value is None, or absent, so that one bad attribute does not cost the image. Texts of errors quote no value.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, UID_dictionary

_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# A comma in place of the point; "1,500" may be a thousand and a half, and is no number.
_DECIMAL_COMMA = re.compile(r"[+-]?(0?,\d+|\d+,\d{1,2}|\d+,\d{4,}|\d{4,},\d+)", re.ASCII)
_LARGEST = 1e30  # above any stored value; its square is a float


def uid_name(value: object) -> str:
    """The name of a UID that the standard registers; "" for any other text, which is never quoted."""
    text = str(value or "").strip("\0 ")
    return UID(text).name if text in UID_dictionary else ""


def attribute_name(tag: BaseTag | int) -> str:
    """The keyword of an attribute; "a private attribute", or "an unknown attribute", for others."""
    keyword = keyword_for_tag(tag)
    return keyword or ("a private attribute" if Tag(tag).is_private else "an unknown attribute")


def text_values(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as text without padding; [] if it is absent, empty, or a sequence."""
    element = _element(dataset, keyword)
    value = element.value if element is not None else None
    if isinstance(element, RawDataElement):
        value = _raw_values(element, keyword)
    values = (
        value if isinstance(value, (MultiValue, list, tuple)) and not isinstance(value, Items) else [value]
    )
    texts = [_text(each) for each in values]
    return texts if any(texts) else []


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The values of an attribute as finite numbers; None for one that is no number."""
    return [parse_number(text) for text in text_values(dataset, keyword)]


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an attribute as a finite number; None if it is absent or no number."""
    return next(iter(numbers(dataset, keyword)), None)


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value of an attribute, if it is a whole number; "2.0" is one."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value == int(value) else None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] if it is absent, empty or no sequence."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom parses a sequence when it is accessed
        return []
    return list(value) if isinstance(value, Items) else []


def is_present(dataset: Dataset, keyword: str) -> bool:
    """Whether an attribute exists and is not empty."""
    element = _element(dataset, keyword)
    return element is not None and element.value not in (None, b"", "") and element.value != []


def raw_bytes(dataset: Dataset, keyword: str) -> bytes:
    """The bytes of an attribute of binary data, whatever type the file states; b"" if it has none."""
    element = _element(dataset, keyword)
    value = None if element is None else element.value
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def parse_number(text: str) -> float | None:
    """A finite number, its decimal point possibly a comma; None for any other text."""
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) and abs(value) <= _LARGEST else None


def has_decimal_comma(texts: Sequence[str]) -> bool:
    """Whether one of several values is a number with a comma in place of its point."""
    return any(_DECIMAL_COMMA.fullmatch(text) for text in texts)


def _element(dataset: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    try:
        return dataset.get_item(keyword)
    except Exception:  # of a value whose reading was deferred
        return None


def _text(value: Any) -> str:
    if value is None or isinstance(value, (bytes, Items, Dataset)):
        return ""
    return str(value).strip("\0 \t\r\n")


def _raw_values(element: RawDataElement, keyword: str) -> list[Any]:
    """The values of an element that pydicom has not converted, by its VR or that of the standard."""
    data = element.value or b""
    stated = element.VR if element.VR not in (None, "UN", "OB", "OW") else ""
    vr = stated or dictionary_VR(keyword).split(" or ")[0]
    if vr not in _FORMATS:
        return data.decode("latin-1").split("\\")
    code = _FORMATS[vr]
    count = len(data) // struct.calcsize(code)
    order = "<" if element.is_little_endian else ">"
    return list(struct.unpack_from(f"{order}{count}{code}", data))
