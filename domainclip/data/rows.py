"""From rows as they were read to the standard columns: what every reader shares.

A reader gives `Source` rows; here their captions, classes, groups and splits are made as the card says,
and rows that can serve neither training nor evaluation are put aside and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets

from domainclip.data import row_captions, splits
from domainclip.data.cards import Card, Columns
from domainclip.data.images import fits
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.row_captions import cell_text
from domainclip.data.schema import COLUMNS, SPLITS
from domainclip.data.text import captions
from domainclip.errors import DataError

_IMAGE = {"path": Value("string"), "bytes": Value("binary")}
FEATURES = Features(
    {
        "id": Value("string"),
        "image": _IMAGE,
        "views": List(_IMAGE),
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
class SourceRow:
    """One row as it was read."""

    values: Mapping[str, Any]
    location: str  # "row 3": for messages
    image: dict[str, Any]  # {path, bytes}
    name: str = ""  # of the image, from the corpus folder; the id and group of a row that has none
    split: str | None = None  # from the name of a folder or of a source's own split
    with_texts: bool = True  # false: its caption columns do not count
    with_labels: bool = True
    views: Sequence[dict[str, Any]] = ()  # further pictures of the same item, as `image`


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
    location: str
    views: list[dict[str, Any]] = field(default_factory=list)


def image_from_cell(cell: Any) -> dict[str, Any]:
    """{path, bytes} of a cell that holds a name, the bytes of a file, or both, as Parquet does."""
    if isinstance(cell, Mapping):
        return {"path": cell.get("path"), "bytes": cell.get("bytes")}
    return {"path": None, "bytes": cell} if isinstance(cell, bytes) else {"path": cell, "bytes": None}


def standardise(
    rows: Iterable[SourceRow],
    columns: Columns,
    card: Card,
    log: ReadLog,
    label_separator: str | None = None,
) -> DatasetDict:
    """The standard columns, in three splits and in the order of the source; see `usable`."""
    kept = usable_items(rows, columns, card, log, label_separator)
    return DatasetDict({split: to_dataset(items) for split, items in kept.items()})


def usable_items(
    rows: Iterable[SourceRow],
    columns: Columns,
    card: Card,
    log: ReadLog,
    label_separator: str | None = None,
) -> dict[str, list[Item]]:
    """The rows that can serve, by split.

    A row is usable when it has a caption, or when it has a class and is not in training: zero-shot
    evaluation needs no caption, training does. Templates make one of the class while training.

    Raises: DataError naming the row for a label, split or id that cannot be.
    """
    told: Counter[str] = Counter()
    items = [_item(row, columns, card, label_separator, told) for row in rows]
    if card.captions.merge_captions:
        items = _joined(items)
    items = _with_own_ids(items, stated=bool(columns.id))
    for text, n in sorted((+told).items()):
        log.add_note(text.format(n))
    kept: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in items:
        if item.texts or (item.labels and (item.split != "train" or card.captions.templates)):
            kept[item.split].append(item)
        else:
            log.unusable.append(UnusableItem(item.location, "empty caption", str(item.image["path"] or "")))
    log.locations = {item.id: item.location for item in items}
    return kept


def to_dataset(items: Sequence[Item]) -> Dataset:
    """Items as a table of the standard columns."""
    # In pieces, because one Arrow array holds 2 GB of pictures at most.
    pieces = [items[at : at + _PIECE] for at in range(0, max(1, len(items)), _PIECE)]
    made = [Dataset.from_dict(_by_column(piece), features=FEATURES) for piece in pieces]
    return made[0] if len(made) == 1 else concatenate_datasets(made)


def _by_column(items: Sequence[Item]) -> dict[str, list[Any]]:
    table = {name: [getattr(item, name) for item in items] for name in COLUMNS}
    return {**table, "meta": [json.dumps(item.meta, ensure_ascii=False) for item in items]}


def _item(
    row: SourceRow, columns: Columns, card: Card, label_separator: str | None, told: Counter[str]
) -> Item:
    labels, unknown = _labels(row, columns, label_separator) if row.with_labels else ([], [])
    labels = [row_captions.count_and_compose(label, told) for label in labels]
    texts = row_captions.captions_of_row(row.values, columns, card, labels, told) if row.with_texts else {}
    # Rows of one picture belong together even when nothing else says so.
    group = _cell(row, columns.group) or row.name
    if columns.split:
        split = splits.parse_split(_cell(row, columns.split), f"{row.location}, column {columns.split}")
    else:
        split = row.split or splits.split_of(group, card.splits)
    meta: dict[str, Any] = {name: cell_text(row.values.get(name)) for name in columns.meta}
    if card.captions.rewrites and row.with_texts:
        reworded = row_captions.captions_in_columns(row.values, card.captions.rewrites, columns, card, told)
        meta[captions.REWRITES] = list(reworded.items())
    return Item(
        id=_cell(row, columns.id) or row.name,
        image=fits.with_fits_settings(row.image, card.pictures.fits),
        texts=list(texts),
        language=list(texts.values()),
        labels=labels,
        group=group,
        meta=meta | ({"unknown_labels": unknown} if unknown else {}),
        split=split,
        location=row.location,
        views=[fits.with_fits_settings(view, card.pictures.fits) for view in row.views],
    )


def _joined(items: list[Item]) -> list[Item]:
    """Rows of one picture, split and place in it as one item, at the first of them."""
    by: dict[tuple[str, str], Item] = {}
    for number, item in enumerate(items):
        key = (item.split, item.image["path"] or f"\0{number}")
        first = by.setdefault(key, item)
        if first is item:
            continue
        texts = dict(zip(first.texts, first.language, strict=True))
        more = {t: spoken for t, spoken in zip(item.texts, item.language, strict=True) if t not in texts}
        by[key] = replace(
            first,
            texts=[*texts, *more],
            language=[*texts.values(), *more.values()],
            labels=list(dict.fromkeys([*first.labels, *item.labels])),
            meta=item.meta | first.meta | _rewrites(first, item),
        )
    return list(by.values())


def _rewrites(first: Item, other: Item) -> dict[str, Any]:
    both = [*first.meta.get(captions.REWRITES, ()), *other.meta.get(captions.REWRITES, ())]
    return {captions.REWRITES: both} if both else {}


def _cell(row: SourceRow, column: str | None) -> str:
    return cell_text(row.values.get(column)) if column else ""


def _labels(row: SourceRow, columns: Columns, separator: str | None) -> tuple[list[str], list[str]]:
    """The classes that hold, and those of which nothing is known."""
    if isinstance(columns.labels, list):
        return _flags(row, columns.labels)
    if not columns.labels:
        return [], []
    cells = [cell_text(value) for value in row_captions.cell_values(row.values.get(columns.labels))]
    if separator:
        cells = [part.strip() for cell in cells for part in cell.split(separator)]
    return list(dict.fromkeys(cell for cell in cells if cell)), []


def _flags(row: SourceRow, names: list[str]) -> tuple[list[str], list[str]]:
    holding, unknown = [], []
    for name in names:
        cell = cell_text(row.values.get(name)).casefold()
        if cell in _UNKNOWN:
            unknown.append(name)
        elif cell not in _HOLDS:
            raise DataError(f"{row.location}, column {name}: not 1, 0, -1 (unknown) or blank")
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
            raise DataError(f"{item.location} has the id of {first[item.id]}: corpus.columns.id must differ")
        first.setdefault(item.id, item.location)
        own.append(item if met[item.id] == 1 else replace(item, id=f"{item.id}#{met[item.id]}"))
    return own
