"""Texts that write out a list, a mapping or bytes, as JSON and Python print them into a table."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LITERAL = re.compile(r"""[\[{(]|[bB]['"]""")
# numpy prints the elements of an array without commas, which Python would join to one text.
_ARRAY_OF_TEXTS = re.compile(rf"\[\s*{_TEXT}(?:\s+{_TEXT})+\s*\]", re.DOTALL)
_ARRAY_OF_NUMBERS = re.compile(r"\[\s*[-+\d.][-+\d.eE]*(?:\s+[-+\d.][-+\d.eE]*)+\s*\]")
# The beginning of a list or mapping of texts; a title such as [Untitled] is none.
_BEGINNING = re.compile(rf"[\[{{]\s*(?:[\[{{(]\s*)*{_TEXT}\s*[,:]", re.DOTALL)
_PRINTED_OBJECT = re.compile(
    r"(?:array|tensor|OrderedDict|defaultdict|deque|frozenset|set)\(\s*[\[{(]|<[\w.]+ .*\bat 0x[0-9a-fA-F]+>"
)

_IMAGE_PREFIXES = ("data:", "/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
# A data URI, or the first bytes of a JPEG, PNG, GIF, WebP or TIFF file in base64.
_ENCODED_IMAGE = re.compile(
    r"data:[\w/.+-]*(?:;[\w=.+-]+)*,|(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/_=\s-]{24}",
)
_MAX_BRACKETS = 10_000  # the parser of Python may end the process on deeper nesting


class BrokenLiteral(ValueError):
    """A text that begins as a list or a mapping, and is not a complete one."""


def is_encoded_image(text: str) -> bool:
    """Whether a text is a data URI, or begins as an image in base64."""
    return text.startswith(_IMAGE_PREFIXES) and _ENCODED_IMAGE.match(text) is not None


def parse_literal(text: str) -> Any:
    """The list, mapping or bytes that a text writes out; any other text unchanged.

    Titles in brackets, such as [Untitled], [1890] and (Paris), are texts.

    Raises: BrokenLiteral for a list or mapping that is cut, and for a printed object.
    """
    if not _LITERAL.match(text):
        if _PRINTED_OBJECT.match(text):
            raise BrokenLiteral
        return text
    if _ARRAY_OF_TEXTS.fullmatch(text):
        return [ast.literal_eval(part) for part in re.findall(_TEXT, text, re.DOTALL)]
    if _ARRAY_OF_NUMBERS.fullmatch(text):
        text = re.sub(r"(?<=[\d.])\s+(?=[-+\d.])", ",", text)
    try:
        value = _parse(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        if _BEGINNING.match(text):
            raise BrokenLiteral from None
        return text
    return value if _is_structure(value) else text


def _parse(text: str) -> Any:
    if sum(map(text.count, "[{(")) > _MAX_BRACKETS:
        raise ValueError
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        with warnings.catch_warnings():  # on backslashes, which a text may hold
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    if isinstance(value, (tuple, set)) and _is_list_of_texts(value):
        return list(value) if isinstance(value, tuple) else sorted(value)  # the order of a set is random
    return value


def _is_list_of_texts(value: tuple[Any, ...] | set[Any]) -> bool:
    kinds = (str, dict, list) if isinstance(value, tuple) else str
    return len(value) > 1 and all(isinstance(element, kinds) for element in value)


def _is_structure(value: Any) -> bool:
    if isinstance(value, list):
        is_number = len(value) == 1 and isinstance(value[0], (int, float))
        return not is_number
    return isinstance(value, (dict, bytes))
