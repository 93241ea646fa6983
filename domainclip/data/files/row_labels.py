"""The classes of a row: names in one column, or a column of 1, 0, −1 or blank for each class."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.data.files.column_roles import Columns
from domainclip.data.text.cells import cell_text, label_texts, of_column
from domainclip.errors import DataError

_FLAG_VALUES = {"1": True, "1.0": True, "true": True, "": False, "0": False, "0.0": False, "false": False}
_UNKNOWN = ("-1", "-1.0")
# Keys of the meta of an item.
UNKNOWN_LABELS = "unknown_labels"
IMPLIED_LABELS = "implied_labels"


@dataclass(frozen=True)
class RowLabels:
    """The classes that a row states, those that it marks as unknown, and those that its classes imply."""

    present: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    implied: list[str] = field(default_factory=list)  # beside `present`

    @property
    def meta(self) -> dict[str, list[str]]:
        """Of the item, beside its labels."""
        lists = {UNKNOWN_LABELS: self.unknown, IMPLIED_LABELS: self.implied}
        return {key: names for key, names in lists.items() if names}

    def with_implied(self, implied_classes: Mapping[str, Sequence[str]], multi_label: bool) -> RowLabels:
        """The same with the classes that `implied_classes` derives, at any distance: none of them is unknown.

        With `multi_label` they are present as any other; else the item has the class of its row, and training
        alone reads the others.
        """
        every = with_implied(self.present, implied_classes)
        implied = [name for name in every if name not in self.present]
        unknown = [name for name in self.unknown if name not in every]
        return RowLabels(every, unknown) if multi_label else RowLabels(self.present, unknown, implied)


def with_implied(names: Iterable[str], implied_classes: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes, then those that follow from them at any distance, each once."""
    every = dict.fromkeys(names)
    following = list(every)
    while following:
        new = [name for name in implied_classes.get(following.pop(), ()) if name not in every]
        every.update(dict.fromkeys(new))
        following += new
    return list(every)


def read(values: Mapping[str, Any], columns: Columns, separator: str | None, location: str) -> RowLabels:
    """The classes of a row; `separator` divides several in one cell, `location` is for messages.

    Raises: CellFault for a cell that is not text; DataError for a class column with another value than 1, 0,
    −1 or blank.
    """
    if isinstance(columns.labels, list):
        return _flags(values, columns.labels, columns.blank_labels == "unknown", location)
    if not columns.labels:
        return RowLabels()
    cells = of_column(label_texts, values, columns.labels)
    if separator:
        cells = [part.strip() for cell in cells for part in cell.split(separator)]
    return RowLabels(list(dict.fromkeys(cell for cell in cells if cell)))


def unused_implications(
    implied_classes: Mapping[str, Sequence[str]], labels: Iterable[Sequence[str]]
) -> list[str]:
    """The classes that should imply others, and that no item has and no class implies; `labels` by item."""
    if not implied_classes:
        return []
    known = {name for of_item in labels for name in of_item}
    known |= {name for names in implied_classes.values() for name in names}
    return [name for name in implied_classes if name not in known]


def merged_meta(
    meta: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], labels: Collection[str]
) -> dict[str, Any]:
    """`meta` for an item of these classes, which the rows of these metas make up.

    A class that any row states is neither unknown nor implied, and one that is implied is not unknown.
    """
    merged, known = dict(meta), set(labels)
    for key in (IMPLIED_LABELS, UNKNOWN_LABELS):
        merged.pop(key, None)
        names = dict.fromkeys(name for row in rows for name in row.get(key, ()))
        if rest := [name for name in names if name not in known]:
            merged[key] = rest
        known |= set(names)
    return merged


def _flags(
    values: Mapping[str, Any], names: Sequence[str], blank_is_unknown: bool, location: str
) -> RowLabels:
    present, unknown = [], []
    for name in names:
        cell = of_column(cell_text, values, name).casefold()
        if cell in _UNKNOWN or (blank_is_unknown and not cell):
            unknown.append(name)
        elif cell not in _FLAG_VALUES:
            raise DataError(f"{location}, column {name}: not 1, 0, -1 (unknown) or blank")
        elif _FLAG_VALUES[cell]:
            present.append(name)
    return RowLabels(present, unknown)
