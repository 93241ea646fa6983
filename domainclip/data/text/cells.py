"""Cells of a source as texts: one value, captions or class names; what is none of these raises CellFault.

What Python prints of a list or a mapping never becomes a caption or the name of a class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import numpy as np

from domainclip.data.text.cell_literals import BrokenLiteral, is_encoded_image, parse_literal
from domainclip.errors import DataError

Result = TypeVar("Result")

_MISSING = frozenset({"nan", "NaN", "<NA>", "NaT"})  # in any column; but Nan is a name
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can contain, but no file
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f]")
_NUMBERS = (bool, int, float, Decimal, np.generic)
_SCALARS = (str, bytes, *_NUMBERS, date, time, timedelta, UUID)
_BYTES = (bytes, bytearray, memoryview)
# The key of the caption in a mapping: of the Karpathy splits, of COCO, and of other releases.
_CAPTION_KEYS = ("raw", "caption", "text", "sentence")
_TURNS = (("from", "value"), ("role", "content"))  # the keys of one turn of a conversation
_ANSWERS, _QUESTIONS = ("gpt", "assistant", "model"), ("human", "user", "system")


class CellFault(DataError):
    """A cell that cannot be used: "a mapping, not text". It never quotes the cell."""


def of_column(convert: Callable[[Any], Result], values: Mapping[str, Any], column: str) -> Result:
    """`convert` of a row's cell.

    Raises: CellFault that begins with the name of the column.
    """
    try:
        return convert(values.get(column))
    except CellFault as fault:
        raise CellFault(f"column {column}: {fault}") from None


def cell_text(value: Any) -> str:
    """A cell with one value as text: empty for null, NaN and the "nan" or "<NA>" that some writers store.

    Raises: CellFault for a list, a mapping, and bytes that are no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, _BYTES):
        value = _decode(bytes(value))
    elif not isinstance(value, _SCALARS):
        raise CellFault(f"{_kind(value)}, not one value")
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", str(value)).strip()
    return "" if text in _MISSING else text


def caption_texts(value: Any) -> list[str]:
    """The captions of a cell: a text, a list of texts, or a form that is known, also written out as text.

    The known forms are a mapping with the caption under one of the keys raw, caption, text and sentence, a
    list of such mappings, and a conversation with one answer.

    Raises: CellFault for a number, a nested list, any other mapping, and a conversation of several answers.
    """
    value = _structure(value)
    if isinstance(value, Mapping):
        value = [value]
    if not _is_list(value):
        return _text_of(value)
    turns = [turn for turn in map(_turn, value) if turn is not None]
    if turns:
        return _answers(turns, len(value))
    return [text for element in value for text in _element_texts(element)]


def label_texts(value: Any) -> list[str]:
    """The class names of a cell: one, or those of a list, also of one that is written out as text.

    Raises: CellFault for a mapping, a nested list, and numbers that are not class numbers.
    """
    value = _structure(value)
    if isinstance(value, Mapping):
        raise CellFault("a mapping, not a class name")
    if not _is_list(value):
        return [_label(value)]
    labels = list(map(_label, value))
    numbers = [label for label, of in zip(labels, value, strict=True) if label and isinstance(of, _NUMBERS)]
    # Class numbers are whole and differ; a vector of flags repeats them.
    if len(set(numbers)) < len(numbers) or not all(number.lstrip("-").isdecimal() for number in numbers):
        raise CellFault("a list of numbers, not class names")
    return labels


def template_text(value: Any) -> str:
    """A cell for a template: one value, or the values of a list with commas between.

    Raises: CellFault for a mapping or a nested list.
    """
    value = _structure(value)
    return ", ".join(filter(None, map(cell_text, value))) if _is_list(value) else cell_text(value)


def distinct_cells(cells: Iterable[Any]) -> list[Any]:
    """The different values of some cells in order, without empty ones; a list of values is taken apart."""
    distinct: dict[str, Any] = {}
    for cell in cells:
        is_flat = _is_list(cell) and not any(isinstance(part, (Mapping, list, tuple)) for part in cell)
        for value in cell if is_flat else [cell]:
            if not isinstance(value, _SCALARS) and value is not None:
                distinct.setdefault(repr(value), value)
            elif text := cell_text(value):
                distinct.setdefault(text, text if isinstance(value, (str, bytes)) else value)
    return list(distinct.values())


def _structure(value: Any) -> Any:
    """The list or mapping that a text writes out; any other value unchanged."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if not isinstance(value, str):
        return value
    if is_encoded_image(value):
        raise CellFault("an image in base64, not text")
    try:
        return parse_literal(value.strip())
    except BrokenLiteral:
        raise CellFault("a list, mapping or object that is cut or cannot be read, not text") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _element_texts(value: Any) -> list[str]:
    """The captions of an element of a list."""
    if not isinstance(value, Mapping):
        return _text_of(value)
    keys = [key for key in _CAPTION_KEYS if key in value]
    if len(keys) != 1:
        raise CellFault("a mapping, not text")
    inner = value[keys[0]]
    return [text for part in (inner if _is_list(inner) else [inner]) for text in _text_of(part)]


def _text_of(value: Any) -> list[str]:
    if value is None or isinstance(value, (str, *_BYTES)) or (isinstance(value, float) and math.isnan(value)):
        text = cell_text(value)
        return [text] if text else []
    raise CellFault(f"{_kind(value)}, not text")


def _turn(value: Any) -> tuple[str, Any] | None:
    """The role and the content of a turn of a conversation; None for any other value."""
    for role, content in _TURNS:
        if isinstance(value, Mapping) and role in value and content in value:
            return str(value[role]), value[content]
    return None


def _answers(turns: list[tuple[str, Any]], count: int) -> list[str]:
    answers = [content for role, content in turns if role in _ANSWERS]
    if len(turns) < count or any(role not in (*_ANSWERS, *_QUESTIONS) for role, _ in turns):
        raise CellFault("a conversation of unknown form, not text")
    if len(answers) != 1:  # an answer without its question is no description of the image
        raise CellFault(f"a conversation with {len(answers)} answers, not a caption")
    parts = answers[0] if _is_list(answers[0]) else [answers[0]]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return [text for part in texts for text in _text_of(part)]


def _label(value: Any) -> str:
    # pandas turns whole numbers into floats where a cell of the column is empty.
    return cell_text(int(value) if isinstance(value, float) and value.is_integer() else value)


def _decode(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        raise CellFault("bytes that are not UTF-8 text")
    return text


def _kind(value: Any) -> str:
    """A value in words, without its content."""
    if isinstance(value, Mapping):
        return "a mapping"
    if _is_list(value) or isinstance(value, np.ndarray):
        return "a list"
    if isinstance(value, _NUMBERS):
        return "a number"
    return (
        "a date or time"
        if isinstance(value, (date, time, timedelta))
        else f"a value of type {type(value).__name__}"
    )
