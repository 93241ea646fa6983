"""From source rows to the standard columns: the part that all readers share.

A reader yields `SourceRow` values; this module makes their captions, classes, groups and splits by the card,
and logs the rows that are usable neither for training nor for evaluation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from domainclip.data import row_captions, splits
from domainclip.data.cards import Card
from domainclip.data.files import row_labels
from domainclip.data.files.column_roles import Columns
from domainclip.data.files.folder_levels import folder_levels, is_folder_level
from domainclip.data.files.row_labels import RowLabels
from domainclip.data.images.fits_header import HeaderColumns, is_header_column
from domainclip.data.images.image_settings import with_settings
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.schema import COLUMNS, SOURCE, SPLITS, features
from domainclip.data.text import captions, languages
from domainclip.data.text.cells import CellFault, cell_text, of_column
from domainclip.errors import DataError

if TYPE_CHECKING:  # a second of imports, which a wrong path or column need not wait for
    from datasets import Dataset, DatasetDict

_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python keeps a byte of a name that is not UTF-8
_CHUNK = 1000  # rows


@dataclass(frozen=True)
class SourceRow:
    """One row of a source."""

    values: Mapping[str, Any]
    location: str  # "row 3": for messages
    image: dict[str, Any]  # {path, bytes}
    name: str = ""  # of the image, relative to the corpus folder; the id and group of a row without them
    split: str | None = None  # from the name of a folder, or from a split of the source
    with_texts: bool = True  # false: its caption columns are ignored
    with_labels: bool = True
    views: Sequence[dict[str, Any]] = ()  # further images of the same item, as `image`


@dataclass(frozen=True)
class Item:
    """One row of the standard columns, with its split and its location in the source."""

    id: str
    image: dict[str, Any]
    texts: list[str]
    language: list[str]
    labels: list[str]
    group: str
    truth: str
    meta: dict[str, Any]
    split: str
    location: str
    views: list[dict[str, Any]] = field(default_factory=list)


def standardise(
    rows: Iterable[SourceRow],
    columns: Columns,
    card: Card,
    log: ReadLog,
    label_separator: str | None = None,
) -> DatasetDict:
    """The standard columns, in three splits and in the order of the source; see `usable_items`."""
    from datasets import DatasetDict

    headers = HeaderColumns(header_columns(columns, card))
    by_split = usable_items(rows, columns, card, log, label_separator, headers)
    headers.refuse_unknown()
    labels = (item.labels for items in by_split.values() for item in items)
    for name in row_labels.unused_implications(card.implied_classes, labels):
        log.add_note(f'corpus.implied_classes: no item has the class "{name}": check its spelling')
    return DatasetDict({split: to_dataset(by_split.pop(split)) for split in SPLITS})


def usable_items(
    rows: Iterable[SourceRow],
    columns: Columns,
    card: Card,
    log: ReadLog,
    label_separator: str | None = None,
    headers: HeaderColumns | None = None,
) -> dict[str, list[Item]]:
    """The usable rows as items, by split; `headers` reads the columns that are in the files of the images.

    A row is usable when it has a caption, or when it has a class and is not trained on: zero-shot
    evaluation needs no caption, but training does, unless templates make one of the class. Nor does a row
    that is measured where the card names changes or written words. A row with a cell that is neither text nor
    of a known form is unusable.

    Raises: DataError with the location of a row whose label, split or id is invalid.
    """
    note_counts: Counter[str] = Counter()
    headers = headers or HeaderColumns(header_columns(columns, card))
    items = list[Item]()
    log.divided = not columns.split and card.splits.by == "group"
    levels = any(map(is_folder_level, row_captions.used_columns(columns, card)))
    for row in rows:
        log.divided = log.divided and row.split is None
        try:
            _check_names(row)
            row = _with_folders(row) if levels else row
            row = _with_header(row, card, headers)
            items.append(_item(row, columns, card, label_separator, note_counts))
        except CellFault as fault:
            log.unusable.append(UnusableItem(row.location, str(fault), str(row.image["path"] or "")))
    for note in headers.notes():
        log.add_note(note)
    if card.captions.merge_captions:
        items = _merge_rows(items)
    items = _with_unique_ids(items, from_column=bool(columns.id))
    if card.splits.by == "source":
        items = _split_by_source(items, card, log)
    for note, n in sorted((+note_counts).items()):
        log.add_note(note.format(n))
    searched = columns.change or columns.written  # by a probe that needs no captions
    usable: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in items:
        trained = item.split == "train" and log.training
        needs_no_caption = (item.labels and card.captions.templates) if trained else (item.labels or searched)
        if item.texts or needs_no_caption:
            usable[item.split].append(item)
        else:
            log.unusable.append(UnusableItem(item.location, "empty caption", str(item.image["path"] or "")))
    log.locations = {item.id: item.location for item in items}
    return usable


def to_dataset(items: Sequence[Item]) -> Dataset:
    """Items as a table of the standard columns."""
    import pyarrow as pa
    from datasets import Dataset

    # An Arrow array holds at most 2 GB of images. `Dataset.from_dict` would examine each value in Python.
    chunks = (_by_column(items[at : at + _CHUNK]) for at in range(0, max(1, len(items)), _CHUNK))
    return Dataset(pa.concat_tables(pa.Table.from_pydict(rows, features().arrow_schema) for rows in chunks))


def _by_column(items: Sequence[Item]) -> dict[str, list[Any]]:
    table = {name: [getattr(item, name) for item in items] for name in COLUMNS}
    return {**table, "meta": [json.dumps(item.meta, ensure_ascii=False) for item in items]}


def header_columns(columns: Columns, card: Card) -> list[str]:
    """The columns that are keywords of FITS headers."""
    return [name for name in row_captions.used_columns(columns, card) if is_header_column(name)]


def _with_header(row: SourceRow, card: Card, headers: HeaderColumns) -> SourceRow:
    if not headers.columns:
        return row
    return replace(row, values={**row.values, **headers.read(with_settings(row.image, card.images))})


def _with_folders(row: SourceRow) -> SourceRow:
    """The row with the levels of its folders, unless it has columns of their names."""
    with_split = row.split is not None and splits.is_split(row.name.partition("/")[0])
    return replace(row, values={**folder_levels(row.name, with_split), **row.values})


def _split_by_source(items: Sequence[Item], card: Card, log: ReadLog) -> list[Item]:
    """The items with one source held out as the test split.

    Raises: DataError.
    """
    sources = [item.meta.get(SOURCE, "") for item in items]
    names = splits.split_by_source(sources, [item.group for item in items], card.splits)
    count = len(set(sources) - {""})
    log.add_note(f"splits: one of {count} sources is held out, {names.count('test')} items")
    return [replace(item, split=name) for item, name in zip(items, names, strict=True)]


def _check_names(row: SourceRow) -> None:
    """Refuse names of files in another encoding, as archives from Windows have them: no table can hold one.

    Raises: CellFault.
    """
    names = [row.name, *(image["path"] or "" for image in (row.image, *row.views))]
    if any(not name.isascii() and _SURROGATE.search(name) for name in names):
        raise CellFault("a file name that is not UTF-8: rename the file or its folder")


def _item(
    row: SourceRow, columns: Columns, card: Card, label_separator: str | None, note_counts: Counter[str]
) -> Item:
    classes = _classes(row, columns, card, label_separator, note_counts)
    texts = {}
    if row.with_texts:
        texts = row_captions.captions_of_row(row.values, columns, card, classes.present, note_counts)
    # Rows of one image are about one thing, and a thing is in one split, also in a corpus without groups. In
    # any form of letters, a key is the same.
    truth = languages.to_nfc(_cell(row, columns.truth) or row.name)
    group = languages.to_nfc(_cell(row, columns.group)) or truth
    if columns.split:
        split = splits.parse_split(_cell(row, columns.split), f"{row.location}, column {columns.split}")
    else:
        split = row.split or splits.split_of(group, card.splits)
    meta = row_captions.meta_of_row(row.values, columns, card, note_counts, with_texts=row.with_texts)
    return Item(
        id=_cell(row, columns.id) or row.name,
        image=with_settings(row.image, card.images),
        texts=list(texts),
        language=list(texts.values()),
        labels=classes.present,
        group=group,
        truth=truth,
        meta=meta | classes.meta,
        split=split,
        location=row.location,
        views=[with_settings(view, card.images) for view in row.views],
    )


def _classes(
    row: SourceRow, columns: Columns, card: Card, separator: str | None, note_counts: Counter[str]
) -> RowLabels:
    if not row.with_labels:
        return RowLabels()
    stated = row_labels.read(row.values, columns, separator, row.location)
    composed = [row_captions.compose_and_count(label, note_counts) for label in stated.present]
    return replace(stated, present=composed).with_implied(card.implied_classes, card.multi_label)


def _merge_rows(items: list[Item]) -> list[Item]:
    """Rows of one image in one split as one item, at the position of the first."""
    merged: dict[tuple[str, str], Item] = {}
    for number, item in enumerate(items):
        key = (item.split, _image_key(item.image) or f"\0{number}")
        first = merged.setdefault(key, item)
        if first is item:
            continue
        texts = dict(zip(first.texts, first.language, strict=True))
        further = {t: code for t, code in zip(item.texts, item.language, strict=True) if t not in texts}
        labels = list(dict.fromkeys([*first.labels, *item.labels]))
        merged[key] = replace(
            first,
            texts=[*texts, *further],
            language=[*texts.values(), *further.values()],
            labels=labels,
            meta=row_labels.merged_meta(item.meta | first.meta, [first.meta, item.meta], labels)
            | _rewrites(first, item),
        )
    return list(merged.values())


def _image_key(image: Mapping[str, Any]) -> str:
    """What two rows of one image share: its location, or the digest of its bytes."""
    # Images inside a table may all have the same inner path.
    data = image["bytes"]
    return str(image["path"] or "") if data is None else f"\0{hashlib.sha256(data).hexdigest()}"


def _rewrites(first: Item, other: Item) -> dict[str, Any]:
    both = [*first.meta.get(captions.REWRITES, ()), *other.meta.get(captions.REWRITES, ())]
    return {captions.REWRITES: both} if both else {}


def _cell(row: SourceRow, column: str | None) -> str:
    return of_column(cell_text, row.values, column) if column else ""


def _with_unique_ids(items: list[Item], from_column: bool) -> list[Item]:
    """Items with unique ids: a repeated image name gets a number; in an id column it is an error."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    unique = []
    for item in items:
        counts[item.id] += 1
        n = counts[item.id]
        if n > 1 and from_column:
            raise DataError(
                f"{item.location} has the id of {first[item.id]}: make the ids differ, or set "
                "corpus.columns.id= to call items by their image"
            )
        first.setdefault(item.id, item.location)
        unique.append(item if n == 1 else replace(item, id=f"{item.id}#{n}"))
    return unique
