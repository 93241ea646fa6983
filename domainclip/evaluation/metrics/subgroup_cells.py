"""Dividing items by what is known of them, without showing anyone: cells, and which of them stay hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

MISSING = "not given"
_NOT_ATTRIBUTES = ("unknown_labels", "boxes")  # what other probes read in the meta column
_MANY = 20  # values beyond which a column that nobody named is not an attribute
Table = Mapping[tuple[str, ...], np.ndarray]  # values, one a column -> rows


@dataclass(frozen=True)
class Column:
    """A metadata column, divided at `bins` when it is a number: `age=40,60`."""

    name: str
    bins: tuple[float, ...] = ()

    def value(self, given: object) -> str:
        """The cell that a value lies in, as it is shown."""
        if given is None or str(given).strip() == "":
            return f"{self.name} {MISSING}"
        if not self.bins:
            return f"{self.name}={str(given).strip()}"
        try:
            number = float(str(given))
        except ValueError:
            return f"{self.name} {MISSING}"
        i = int(np.searchsorted(self.bins, number, side="right"))
        if i == 0:
            return f"{self.name} <{self.bins[0]:g}"
        above = "" if i == len(self.bins) else f" to <{self.bins[i]:g}"
        return f"{self.name} ≥{self.bins[i - 1]:g}{above}"


def parse(asked: str) -> Column:
    """`sex`, or `age=40,60`.

    Raises: ValueError for bins that are no ascending numbers.
    """
    name, equals, bins = asked.partition("=")
    try:
        limits = tuple(float(limit) for limit in bins.split(",")) if equals else ()
    except ValueError:
        limits = (0.0, 0.0)
    if not name.strip() or any(a >= b for a, b in pairwise(limits)):
        raise ValueError(
            f'by: "{asked}" is neither a column nor a column with ascending limits, as age=40,60'
        )
    return Column(name.strip(), limits)


def attributes(items: Dataset) -> dict[str, list[object]]:
    """What is known of each item, by name: the meta columns, and the language of the captions."""
    metas = [json.loads(meta or "{}") for meta in items["meta"]]
    known = sorted({key for meta in metas for key in meta if key not in _NOT_ATTRIBUTES})
    found: dict[str, list[object]] = {key: [meta.get(key) for meta in metas] for key in known}
    spoken = [sorted({language for language in languages if language}) for languages in items["language"]]
    if len({language for each in spoken for language in each}) > 1:
        found.setdefault("language", ["+".join(each) or None for each in spoken])
    return found


def suitable(values: Sequence[object]) -> bool:
    """Whether a column that nobody named divides the items into groups worth a look."""
    distinct = {str(value) for value in values if value is not None and str(value).strip()}
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in distinct)
    return 1 < len(distinct) <= (_MANY if not numbers else 5)


def divide(columns: Sequence[Column], known: Mapping[str, Sequence[object]], rows: np.ndarray) -> Table:
    """Which of the rows lie in which cell of a table with these columns; places in `rows`."""
    cells: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        key = tuple(column.value(known[column.name][row]) for column in columns)
        cells.setdefault(key, []).append(place)
    return {key: np.array(cells[key]) for key in sorted(cells)}


def hidden(
    people: dict[tuple[str, ...], int], smallest: int, start: Iterable[tuple[str, ...]] = ()
) -> set[tuple[str, ...]]:
    """The cells that are not shown: small ones, and others so that none can be worked out by subtraction.

    `people` counts patients or objects, not pictures. In each line of the table, whose sum may be known, the
    hidden cells are at least two and hold at least `smallest` together; cells of `start` are hidden anyway.
    """
    found = {key for key, count in people.items() if count < smallest} | set(start)
    width = len(next(iter(people), ()))
    # A line is what is left when one column varies and the others are held.
    lines: dict[tuple[int, tuple[str, ...]], list[tuple[str, ...]]] = {}
    for key in people:
        for varying in range(width):
            lines.setdefault((varying, key[:varying] + key[varying + 1 :]), []).append(key)
    changed = True
    while changed:
        changed = False
        for line in lines.values():
            dark = [key for key in line if key in found]
            light = sorted((people[key], key) for key in line if key not in found)
            if dark and light and (len(dark) < 2 or sum(people[key] for key in dark) < smallest):
                found.add(light[0][1])
                changed = True
    return found
