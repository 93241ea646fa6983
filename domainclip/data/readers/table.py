"""A table that names images: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from domainclip.data.cards import Card, corpus_root
from domainclip.data.files import corpus_folder, tables
from domainclip.data.files.column_roles import Columns
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources import columns
from domainclip.data.readers.sources.image_cells import image_from_cell
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.text.cells import CellFault, label_texts, of_column
from domainclip.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

Condition = dict[
    str, str | int | list[str | int]
]  # column -> the required value, or a list of possible values


@dataclass(frozen=True, kw_only=True)
class Table(CorpusReader):
    """Reads a table, or a folder with a metadata.csv, .tsv, .jsonl or .parquet; images lie in its folder."""

    encoding: str = "utf-8-sig"  # of the table; cp1252 and others as Python names them
    separator: str | None = None  # null: guessed from the header
    quoting: bool | None = None  # whether quotes enclose cells; null: guessed from their positions
    image_folder: str = ""  # that image names are relative to, from the folder of the table; or any other
    label_separator: str | None = None  # "|" when a cell may hold several classes, as in a|b
    where: Condition | None = None  # only rows with these values are used
    texts_where: Condition | None = None  # captions only of rows with these values
    labels_where: Condition | None = None  # classes only of rows with these values

    citation: ClassVar[str] = "RFC 4180 (CSV), jsonlines.org, Apache Parquet"

    def check_source(self, card: Card, path: Path | str) -> None:
        """Check the columns, where the head of the table shows them."""
        file = _find_table(path)
        if available := tables.peek_columns(file, self.encoding, self.separator):
            self._resolve_columns(card, available, file.name, ReadLog())

    def source_files(self, card: Card, path: Path | str) -> list[Path]:
        """The table."""
        return [_find_table(path)]

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the selected rows, in the order of the table."""
        file = _find_table(path)
        table = tables.read_table(file, self.encoding, self.separator, self.quoting)
        roles, column = self._resolve_columns(card, table.columns, file.name, log)
        root = (corpus_root(path) / self.image_folder).resolve()
        rows, selected = list[SourceRow](), 0
        for number, row in enumerate(table.rows, start=1):
            try:
                if not _matches(self.where, row):
                    continue
                selected += 1
                with tables.named_in_errors(file.name):
                    rows.append(self._row(row, f"row {number}", column, root))
            except CellFault as fault:
                log.unusable.append(UnusableItem(f"row {number}", str(fault)))
        if selected < len(table.rows):
            log.add_note(f"{selected} of {len(table.rows)} rows are selected (corpus.options.where)")
        for note in table.notes:
            log.add_note(note)
        with tables.named_in_errors(file.name):
            return standardise(_with_names(rows), roles, card, log, self.label_separator)

    def _resolve_columns(
        self, card: Card, available: list[str], name: str, log: ReadLog
    ) -> tuple[Columns, str]:
        """The column of each role, and that of the images."""
        roles = columns.resolve_columns(card, available, name, log)
        column = columns.require_image_column(roles, available, name)
        for key in ("where", "texts_where", "labels_where"):
            _refuse_unknown(getattr(self, key), f"corpus.options.{key}", available, name)
        return roles, column

    def _row(self, row: dict[str, Any], location: str, column: str, root: Path) -> SourceRow:
        image = of_column(image_from_cell, row, column)
        name = image["path"] or ""
        if image["bytes"] is None:
            # A row without a name gets a missing file, and is counted with the missing ones.
            image["path"] = str(corpus_folder.path_inside(root, name or "?", f"{location}, column {column}"))
        else:
            image["path"] = name
        return SourceRow(
            values=row,
            location=location,
            image=image,
            name=name or location,
            with_texts=_matches(self.texts_where, row),
            with_labels=_matches(self.labels_where, row),
        )


def _find_table(path: Path | str) -> Path:
    """The table at a path.

    Raises: DataError for a folder without one.
    """
    file = tables.find_table(Path(path))
    if file is None:
        raise DataError(
            f"{path}: no metadata.csv, .tsv, .jsonl or .parquet in this folder: name the table in "
            "corpus.path, or set corpus.reader=folder for class folders"
        )
    return file


def _with_names(rows: list[SourceRow]) -> list[SourceRow]:
    """The rows with names that differ where the images inside the table do, whatever their inner paths.

    Rows of one image have one name, and so are one group.
    """
    digests = {
        row.location: hashlib.sha256(row.image["bytes"]).digest()
        for row in rows
        if row.image["bytes"] is not None
    }
    first: dict[bytes, str] = {}
    images: dict[str, set[bytes]] = {}
    for row in rows:
        if digest := digests.get(row.location):
            first.setdefault(digest, row.location)
            images.setdefault(row.image["path"], set()).add(digest)
    return [
        replace(row, name=first[digests[row.location]])
        if row.location in digests and (not row.image["path"] or len(images[row.image["path"]]) > 1)
        else row
        for row in rows
    ]


def _matches(condition: Condition | None, row: dict[str, Any]) -> bool:
    for column, required in (condition or {}).items():
        values = required if isinstance(required, list) else [required]
        cells = of_column(label_texts, row, column)
        if not {str(value) for value in values} & set(cells or [""]):
            return False
    return True


def _refuse_unknown(condition: Condition | None, key: str, available: list[str], name: str) -> None:
    for column in condition or {}:
        if column not in available:
            suggestion = columns.suggest_columns(column, available)
            raise DataError(f'{name}: no column "{column}" ({key}): {suggestion}')
