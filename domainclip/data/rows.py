"""From rows as they were read to the standard columns: what every reader shares.

A reader gives `Source` rows; here their captions, classes, groups and splits are made as the card says,
and rows that can serve neither training nor evaluation are put aside and counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets

from domainclip.contracts import COLUMNS, SPLITS
from domainclip.data import captions, splits
from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import Bad, Journal
from domainclip.errors import DataError

FEATURES = Features(
    {
        "id": Value("string"),
        "image": {"path": Value("string"), "bytes": Value("binary")},
        "texts": List(Value("string")),
        "language": List(Value("string")),  # one a text, "" when unknown
        "labels": List(Value("string")),
        "group": Value("string"),
        "meta": Value("string"),
    }
)
_HOLDS = {"1": True, "1.0": True, "true": True, "": False, "0": False, "0.0": False, "false": False}
_UNKNOWN = ("-1", "-1.0")
_PIECE = 1000  # rows


@dataclass(frozen=True)
class Source:
    """One row as it was read."""

    values: Mapping[str, Any]
    place: str  # "row 3": for messages
    image: dict[str, Any]  # {path, bytes}
    name: str = ""  # of the image, from the corpus folder; the id and group of a row that has none
    split: str | None = None  # from the name of a folder or of a source's own split
    with_texts: bool = True  # false: its caption columns do not count
    with_labels: bool = True


@dataclass(frozen=True)
class Item:
    """One row of the standard columns, before it has a split of its own and a place in it."""

    id: str
    image: dict[str, Any]
    texts: list[str]
    language: list[str]
    labels: list[str]
    group: str
    meta: dict[str, Any]
    split: str
    place: str


def standardise(
    rows: Iterable[Source], columns: Columns, card: Card, journal: Journal, label_separator: str | None = None
) -> DatasetDict:
    """The standard columns, in three splits and in the order of the source.

    A row is usable when it has a caption, or when it has a class and is not in training: zero-shot
    evaluation needs no caption, training does.

    Raises: DataError naming the row for a label, split or id that cannot be.
    """
    items = [_item(row, columns, card, label_separator) for row in rows]
    items = _with_own_ids(items, stated=bool(columns.id))
    kept: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in items:
        if item.texts or (item.labels and item.split != "train"):
            kept[item.split].append(item)
        else:
            journal.bad.append(Bad(item.place, "empty caption", str(item.image["path"] or "")))
    journal.places = {item.id: item.place for item in items}
    return DatasetDict({split: dataset(kept[split]) for split in SPLITS})


def dataset(items: Sequence[Item]) -> Dataset:
    """Items as a table of the standard columns."""
    # In pieces, because one Arrow array holds 2 GB of pictures at most.
    pieces = [items[at : at + _PIECE] for at in range(0, max(1, len(items)), _PIECE)]
    made = [Dataset.from_dict(_by_column(piece), features=FEATURES) for piece in pieces]
    return made[0] if len(made) == 1 else concatenate_datasets(made)


def _by_column(items: Sequence[Item]) -> dict[str, list[Any]]:
    table = {name: [getattr(item, name) for item in items] for name in COLUMNS}
    return {**table, "meta": [json.dumps(item.meta, ensure_ascii=False) for item in items]}


def text_of(value: Any) -> str:
    """A cell as text: nothing for null, NaN and the "nan" that some writers put for it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text in ("nan", "NaN") else text  # but Nan is a name


def _item(row: Source, columns: Columns, card: Card, label_separator: str | None) -> Item:
    labels, unknown = _labels(row, columns, label_separator) if row.with_labels else ([], [])
    texts = _texts(row, columns, card, labels) if row.with_texts else {}
    # Rows of one picture belong together even when nothing else says so.
    group = _cell(row, columns.group) or row.name
    if columns.split:
        split = splits.said(_cell(row, columns.split), f"{row.place}, column {columns.split}")
    else:
        split = row.split or splits.split_of(group, card.splits)
    meta: dict[str, Any] = {name: text_of(row.values.get(name)) for name in columns.meta}
    return Item(
        id=_cell(row, columns.id) or row.name,
        image=row.image,
        texts=list(texts),
        language=list(texts.values()),
        labels=labels,
        group=group,
        meta=meta | ({"unknown_labels": unknown} if unknown else {}),
        split=split,
        place=row.place,
    )


def _cell(row: Source, column: str | None) -> str:
    return text_of(row.values.get(column)) if column else ""


def _texts(row: Source, columns: Columns, card: Card, labels: list[str]) -> dict[str, str]:
    """Each caption once, with its language."""
    single = card.language[0] if len(card.language) == 1 else ""
    default = _cell(row, columns.language) or single
    own = [
        (text_of(text), columns.languages.get(name, default))
        for name in columns.texts or []
        for text in _listed(row.values.get(name))
    ]
    own = [(text, language) for text, language in own if text]
    template = card.captions.template
    if template is None:
        return dict(own)
    values = {name: text_of(row.values.get(name)) for name in captions.columns_of(template)}
    if columns.labels:
        values["label"] = ", ".join(labels)
    if "text" not in values:
        own = [("", default)]  # the template says all, and says it once
    own = own or [("", default)]
    filled = [(captions.fill(template, {**values, "text": text}), spoken) for text, spoken in own]
    return {text: spoken for text, spoken in filled if text}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _labels(row: Source, columns: Columns, separator: str | None) -> tuple[list[str], list[str]]:
    """The classes that hold, and those of which nothing is known."""
    if isinstance(columns.labels, list):
        return _flags(row, columns.labels)
    if not columns.labels:
        return [], []
    cells = [text_of(value) for value in _listed(row.values.get(columns.labels))]
    if separator:
        cells = [part.strip() for cell in cells for part in cell.split(separator)]
    return list(dict.fromkeys(cell for cell in cells if cell)), []


def _flags(row: Source, names: list[str]) -> tuple[list[str], list[str]]:
    holding, unknown = [], []
    for name in names:
        cell = text_of(row.values.get(name)).casefold()
        if cell in _UNKNOWN:
            unknown.append(name)
        elif cell not in _HOLDS:
            raise DataError(f"{row.place}, column {name}: not 1, 0, -1 (unknown) or blank")
        elif _HOLDS[cell]:
            holding.append(name)
    return holding, unknown


def _with_own_ids(items: list[Item], stated: bool) -> list[Item]:
    """Every id once. A stated id that repeats is an error; the second row of an image gets a number."""
    met: Counter[str] = Counter()
    first: dict[str, str] = {}
    own = []
    for item in items:
        met[item.id] += 1
        if met[item.id] > 1 and stated:
            raise DataError(f"{item.place} has the id of {first[item.id]}: corpus.columns.id must differ")
        first.setdefault(item.id, item.place)
        own.append(item if met[item.id] == 1 else replace(item, id=f"{item.id}#{met[item.id]}"))
    return own
