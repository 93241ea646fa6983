"""A table that names images: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import DatasetDict

from domainclip.data.cards import Card, corpus_root
from domainclip.data.files import corpus_folder, tables
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources import columns
from domainclip.data.row_captions import cell_text
from domainclip.data.rows import SourceRow, image_from_cell, standardise
from domainclip.errors import DataError

Condition = dict[str, str | int | list[str | int]]  # column -> the value, or values, that count


@dataclass(frozen=True, kw_only=True)
class Table(CorpusReader):
    """Reads a table, or a folder with a metadata.csv, .tsv, .jsonl or .parquet; images lie in its folder."""

    encoding: str = "utf-8-sig"
    separator: str | None = None  # null: found in the header
    image_folder: str = ""  # where the names of images start, inside the corpus folder
    label_separator: str | None = None  # "|" when a cell may hold several classes, as in a|b
    where: Condition | None = None  # take only rows with these values
    texts_where: Condition | None = None  # captions count only in rows with these values
    labels_where: Condition | None = None  # classes count only in rows with these values

    citation: ClassVar[str] = "RFC 4180 (CSV), jsonlines.org, Apache Parquet"

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the rows that are taken, in the order of the table."""
        file = tables.find_table(Path(path))
        if file is None:
            raise DataError(
                f"{path}: no metadata.csv, .tsv, .jsonl or .parquet in this folder: name the table in "
                "corpus.path, or set corpus.reader=folder for class folders"
            )
        table = tables.read_table(file, self.encoding, self.separator)
        found = columns.resolve_columns(card, table.columns, file.name, log)
        column = columns.require_image_column(found, table.columns, file.name)
        for key in ("where", "texts_where", "labels_where"):
            _refuse_unknown(getattr(self, key), f"corpus.options.{key}", table)
        root = (corpus_root(path) / self.image_folder).resolve()
        rows = [
            self._source(row, f"row {number}", column, root)
            for number, row in enumerate(table.rows, start=1)
            if _holds(self.where, row)
        ]
        if len(rows) < len(table.rows):
            log.add_note(f"{len(rows)} of {len(table.rows)} rows are taken (corpus.options.where)")
        return standardise(rows, found, card, log, self.label_separator)

    def _source(self, row: dict[str, Any], place: str, column: str, root: Path) -> SourceRow:
        inside = image_from_cell(row.get(column))  # Parquet may hold the picture itself
        name = cell_text(inside["path"])
        image = {"path": name, "bytes": inside["bytes"]}
        if not isinstance(image["bytes"], bytes):  # JSON may say there what it likes
            image["bytes"] = None
            # A row without a name gets a file that is not there, and is counted with those.
            image["path"] = str(corpus_folder.path_inside(root, name or "?", f"{place}, column {column}"))
        return SourceRow(
            values=row,
            location=place,
            image=image,
            name=name or place,
            with_texts=_holds(self.texts_where, row),
            with_labels=_holds(self.labels_where, row),
        )


def _holds(condition: Condition | None, row: dict[str, Any]) -> bool:
    for column, wanted in (condition or {}).items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if cell_text(row.get(column)) not in [str(value) for value in values]:
            return False
    return True


def _refuse_unknown(condition: Condition | None, key: str, table: tables.Table) -> None:
    for column in condition or {}:
        if column not in table.columns:
            near = columns.suggest_columns(column, table.columns)
            raise DataError(f'{table.file.name}: no column "{column}" ({key}): {near}')
