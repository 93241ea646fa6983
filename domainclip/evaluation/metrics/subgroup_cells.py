"""Subgroup cells: items divided by attributes, with suppression of small cells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from domainclip.data.dicom import typed_values
from domainclip.data.schema import ACQUISITION, SOURCE

if TYPE_CHECKING:
    from datasets import Dataset

MISSING = "not given"
_RESERVED = ("unknown_labels", "boxes", SOURCE, ACQUISITION)  # keys of `meta` that other probes read
_MAX_VALUES, _MAX_NUMBERS = (
    20,
    5,
)  # distinct values, of texts and of numbers, up to which a column is categorical
Table = Mapping[tuple[str, ...], np.ndarray]  # a value per column -> rows


@dataclass(frozen=True)
class Column:
    """A metadata column, divided at `bins` when it is a number: `age=40,60`."""

    name: str
    bins: tuple[float, ...] = ()

    def value(self, raw: object) -> str:
        """The displayed name of the cell of a raw value."""
        if raw is None or str(raw).strip() == "":
            return f"{self.name} {MISSING}"
        if not self.bins:
            return f"{self.name}={raw:g}" if isinstance(raw, float) else f"{self.name}={str(raw).strip()}"
        number = _number(raw)
        if number is None:
            return f"{self.name} {MISSING}"
        i = int(np.searchsorted(self.bins, number, side="right"))
        if i == 0:
            return f"{self.name} <{self.bins[0]:g}"
        above = "" if i == len(self.bins) else f" to <{self.bins[i]:g}"
        return f"{self.name} ≥{self.bins[i - 1]:g}{above}"


def parse_column(text: str) -> Column:
    """The column of a text such as `sex` or `age=40,60`.

    Raises: ValueError for bins that are not ascending numbers.
    """
    name, equals, bins = text.partition("=")
    try:
        limits = tuple(float(limit) for limit in bins.split(",")) if equals else ()
    except ValueError:
        limits = (0.0, 0.0)
    if not name.strip() or any(a >= b for a, b in pairwise(limits)):
        raise ValueError(
            f'by: "{text}" is neither a column nor a column with ascending limits, such as age=40,60'
        )
    return Column(name.strip(), limits)


def item_attributes(items: Dataset) -> dict[str, list[object]]:
    """The attributes of the items, by name: the meta columns, and the language of the captions."""
    metas = [json.loads(meta or "{}") for meta in items["meta"]]
    names = sorted({key for meta in metas for key in meta if key not in _RESERVED})
    columns: dict[str, list[object]] = {key: _typed([meta.get(key) for meta in metas], key) for key in names}
    languages_of = [
        sorted({language for language in languages if language}) for languages in items["language"]
    ]
    if len({language for each in languages_of for language in each}) > 1:
        columns.setdefault("language", ["+".join(each) or None for each in languages_of])
    return columns


def _typed(values: list[object], name: str) -> list[object]:
    vr = typed_values.type_of(name, values)
    return [typed_values.typed_value(value, vr, name) for value in values] if vr else values


def reason_not_shown(column: Column, values: Sequence[object]) -> str:
    """Why a column divides no items, in words that quote no value; "" for one that does."""
    given = [value for value in values if value is not None and str(value).strip()]
    if not given:
        return "no value"
    bad = count_no_numbers(column, values)
    return f"no number in {bad} of {len(values)}" if bad == len(given) else ""


def count_no_numbers(column: Column, values: Sequence[object]) -> int:
    """The number of values that a column with limits cannot place, for they are no numbers."""
    given = [value for value in values if value is not None and str(value).strip()]
    return sum(_number(value) is None for value in given) if column.bins else 0


def reason_not_categorical(values: Sequence[object]) -> str:
    """Why a column does not divide the items by default; "" for one that does."""
    distinct = {str(value) for value in values if value is not None and str(value).strip()}
    if is_categorical(values) or not distinct:
        return "" if distinct else "no value"
    if len(distinct) == 1:
        return "one value"
    if all(_number(value) is not None for value in distinct):
        return f"{len(distinct)} distinct numbers: give limits, as in by=[NAME=40,60]"
    return f"{len(distinct)} distinct values"


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_categorical(values: Sequence[object]) -> bool:
    """Whether a column has few enough distinct values to divide the items by default."""
    distinct = {str(value) for value in values if value is not None and str(value).strip()}
    numbers = all(_number(value) is not None for value in distinct)
    return 1 < len(distinct) <= (_MAX_NUMBERS if numbers else _MAX_VALUES)


def split_into_cells(
    columns: Sequence[Column], values: Mapping[str, Sequence[object]], rows: np.ndarray
) -> Table:
    """The cells of a table with these columns; each cell holds indices into `rows`."""
    cells: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        key = tuple(column.value(values[column.name][row]) for column in columns)
        cells.setdefault(key, []).append(index)
    return {key: np.array(cells[key]) for key in sorted(cells)}


def suppressed_cells(
    group_counts: dict[tuple[str, ...], int], smallest: int, start: Iterable[tuple[str, ...]] = ()
) -> set[tuple[str, ...]]:
    """The suppressed cells: small ones, and further ones so that none can be derived by subtraction.

    `group_counts` count patients or objects, not images. In each line of the table, whose sum may be known,
    the suppressed cells are at least two, with at least `smallest` groups together; cells of `start` are
    suppressed in any case.
    """
    suppressed = {key for key, count in group_counts.items() if count < smallest} | set(start)
    width = len(next(iter(group_counts), ()))
    # A line is the cells in which one column varies and the others are fixed.
    lines: dict[tuple[int, tuple[str, ...]], list[tuple[str, ...]]] = {}
    for key in group_counts:
        for varying in range(width):
            lines.setdefault((varying, key[:varying] + key[varying + 1 :]), []).append(key)
    changed = True
    while changed:
        changed = False
        for line in lines.values():
            hidden = [key for key in line if key in suppressed]
            visible = sorted((group_counts[key], key) for key in line if key not in suppressed)
            if (
                hidden
                and visible
                and (len(hidden) < 2 or sum(group_counts[key] for key in hidden) < smallest)
            ):
                suppressed.add(visible[0][1])
                changed = True
    return suppressed
