"""Rows of JSON: a line each, or a list of them in one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from domainclip.errors import DataError

Rows = list[dict[str, Any]]


def parse_json_lines(text: str, name: str) -> Rows:
    """The rows of a file with one JSON object per line; a file that is one JSON list is read as well.

    Raises: DataError naming the line.
    """
    if text.lstrip().startswith("["):
        return parse_json(text, name)
    rows: Rows = []
    for number, line in _numbered_lines(text):
        try:
            row = json.loads(line)
        except RecursionError:
            raise DataError(
                f"{name}: line {number} is nested too deeply: a row must be a flat object of columns"
            ) from None
        except ValueError as error:
            raise DataError(f"{name}: line {number} is not JSON: {_reason(error)}") from None
        if not isinstance(row, dict):
            raise DataError(f"{name}: line {number} is not a JSON object of columns")
        rows.append(row)
    return rows


def parse_json(text: str, name: str) -> Rows:
    """The rows of one JSON document: a list of objects, or an object with one such list.

    The Karpathy splits of COCO and Flickr30k have it under the key images.

    Raises: DataError for a document of another form.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise DataError(f"{name}: is nested too deeply: write a list of objects") from None
    except ValueError as error:
        raise DataError(f"{name}: is not JSON: {_reason(error)}") from None
    if isinstance(document, dict):
        lists = [value for value in document.values() if value and _is_rows(value)]
        if len(lists) != 1:
            raise DataError(
                f"{name}: holds {len(lists)} lists of objects, not one: join them, and write the "
                "rows as JSON lines"
            )
        document = lists[0]
    if not _is_rows(document):
        raise DataError(f"{name}: is no list of JSON objects: write one object of columns per row")
    rows: Rows = document
    return rows


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): a caption may contain U+2028, which is not a line end in JSON.
    end = "\n" if "\n" in text else "\r"
    return ((number, line) for number, line in enumerate(text.split(end), start=1) if line.strip())


def _reason(error: ValueError) -> str:
    """The message of the parser; of an overlong number its message quotes nothing either."""
    return str(error).partition("; use sys.")[0]
