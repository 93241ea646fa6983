"""Tables: the rows of a CSV, TSV, JSON, Parquet or Excel file by column, or an error that names the place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.data.files import text_files, workbooks
from domainclip.data.files.column_names import column_name
from domainclip.data.files.delimited import parse_delimited, read_header
from domainclip.data.files.json_tables import parse_json, parse_json_lines
from domainclip.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")  # of a table that is searched in a folder
_OF_ROW = re.compile(r"(?:\w+ )?row \d")  # "row 3", "train row 3"
_JSON_LINES = (".jsonl", ".ndjson")
_READ = (*SUFFIXES, ".json", ".xlsx")
_REMEDIES = {
    ".xls": "save it as .xlsx or CSV UTF-8",
    ".ods": "save it as CSV UTF-8",
    ".numbers": "export it as CSV UTF-8",
    ".txt": "name it .csv, or .tsv when tabs separate its columns",
    ".tab": "name it .tsv",
    ".feather": "write it as Parquet",
    ".arrow": "write it as Parquet, or set corpus.reader=hub for a folder of save_to_disk",
    ".zip": "unpack it",
    ".gz": "unpack it",
}


@dataclass(frozen=True)
class Table:
    """A table in memory; `rows[i]` is called row i + 1 in messages, which do not count the header."""

    file: Path
    columns: list[str]
    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def find_table(path: Path, names: tuple[str, ...] = ("metadata",)) -> Path | None:
    """The path itself or, in a folder, the first of metadata.csv, .tsv, … that exists, or None."""
    if not path.is_dir():
        return path
    return next((path / f"{n}{s}" for n in names for s in SUFFIXES if (path / f"{n}{s}").is_file()), None)


def read_table(
    file: Path,
    encoding: str = text_files.DEFAULT,
    separator: str | None = None,
    quoting: bool | None = None,
    key: str = "corpus.path",
) -> Table:
    """The whole table; names of columns are without outer space and in composed form (NFC).

    `key` names the file in the recipe, for the message when it does not exist.

    Raises: DataError naming the file, the row or byte, and the remedy.
    """
    suffix = _suffix(file, key)
    if suffix == ".parquet":
        table = _read_parquet(file)
    elif suffix == ".xlsx":
        table = Table(file, *workbooks.read_workbook(file))
    else:
        text, note = text_files.read_text_file(file, encoding)
        notes = [note] if note else []
        if suffix in (".csv", ".tsv"):
            columns, rows, further = parse_delimited(text, file.name, separator, quoting)
            table = Table(file, columns, rows, (*notes, *further))
        else:
            rows = (parse_json_lines if suffix in _JSON_LINES else parse_json)(text, file.name)
            table = Table(file, list(dict.fromkeys(name for row in rows for name in row)), rows, tuple(notes))
    if not table.rows:
        raise DataError(f"{file.name}: the table has no rows")
    return _with_column_names(table)


def peek_columns(
    file: Path, encoding: str = text_files.DEFAULT, separator: str | None = None, key: str = "corpus.path"
) -> list[str] | None:
    """The names of the columns, from the head of the file; None where the head does not show them.

    It does not in JSON, whose rows may have different keys, and in Excel, which is unpacked as a whole. A
    head that cannot be read is a fault that `read_table` names.

    Raises: DataError for a file that does not exist, or is of an unknown kind.
    """
    suffix = _suffix(file, key)
    try:
        if suffix == ".parquet":
            import pyarrow.parquet

            return [column_name(name) for name in pyarrow.parquet.read_schema(file).names]
        if suffix in (".csv", ".tsv"):
            return read_header(text_files.read_head(file, encoding), file.name, separator)
    except Exception:  # of any kind: the whole file is read later, and the place of its fault named
        return None
    return None


@contextmanager
def named_in_errors(name: str) -> Iterator[None]:
    """Put the name of a table or data set before errors that begin with a row of it or of a split."""
    try:
        yield
    except DataError as error:
        raise (DataError(f"{name}: {error}") if _OF_ROW.match(str(error)) else error) from None


def _suffix(file: Path, key: str) -> str:
    """The suffix of a table in lower case.

    Raises: DataError for a file that does not exist, or is of an unknown kind.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file: check {key}")
    suffix = file.suffix.lower()
    if suffix not in _READ:
        remedy = _REMEDIES.get(suffix, f"use one of {', '.join(_READ)}")
        raise DataError(f'{file.name}: unknown kind of table "{suffix}": {remedy}')
    return suffix


def _with_column_names(table: Table) -> Table:
    """The table with its columns named by `column_name`."""
    names = {name: column_name(name) for name in table.columns}
    if all(name == new for name, new in names.items()):
        return table
    columns = list(names.values())
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(
                f'{table.file.name}: column "{name}" occurs twice: two names differ only in space, invisible '
                "characters or the form of letters: rename one"
            )
    rows = [{names[name]: value for name, value in row.items()} for row in table.rows]
    return Table(table.file, columns, rows, table.notes)


def _read_parquet(file: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = list(pyarrow.parquet.read_schema(file).names)
        for name in columns:
            if columns.count(name) > 1:
                raise DataError(f'{file.name}: column "{name}" occurs twice: rename one')
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name}: not a Parquet file: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:  # of the schema, also of the fields of a struct
        fault = "the name of a column or field is not UTF-8: write the file again with another name"
        raise DataError(f"{file.name}: {fault}") from None
    try:
        return Table(file, columns, table.to_pylist())
    except (ValueError, OverflowError, ImportError, pyarrow.ArrowException):
        name = next(name for name in columns if not _is_readable(table[name]))
        raise DataError(
            f'{file.name}: column "{name}" is not valid {table[name].type}: write it again, or without it'
        ) from None


def _is_readable(column: Any) -> bool:
    try:
        column.to_pylist()
    except Exception:  # of any kind: dates out of range, text that is not UTF-8
        return False
    return True
