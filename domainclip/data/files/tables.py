"""Tables: the unchanged rows of a CSV, TSV, JSON-lines or Parquet file, or an error that names the place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SEPARATORS = ("\t", ",", ";", "|")
_MAX_FIELD_LENGTH = 16 * 2**20  # characters; the csv module's default of 131,072 would refuse long reports


@dataclass(frozen=True)
class Table:
    """A table in memory; `rows[i]` is called row i + 1 in messages, which do not count the header."""

    file: Path
    columns: list[str]
    rows: list[dict[str, Any]]


def find_table(path: Path, names: tuple[str, ...] = ("metadata",)) -> Path | None:
    """The path itself or, in a folder, the first of metadata.csv, .tsv, … that exists, or None."""
    if not path.is_dir():
        return path
    return next((path / f"{n}{s}" for n in names for s in SUFFIXES if (path / f"{n}{s}").is_file()), None)


def read_table(file: Path, encoding: str = "utf-8-sig", separator: str | None = None) -> Table:
    """The whole table.

    Raises: DataError naming the file, the row or byte, and the remedy.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file: check corpus.path")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f'{file.name}: unknown kind of table "{suffix}": use one of {", ".join(SUFFIXES)}')
    if suffix == ".parquet":
        table = _read_parquet(file)
    else:
        text = _read_text(file, encoding)
        is_json = suffix in (".jsonl", ".ndjson")
        table = _parse_json_lines(file, text) if is_json else _parse_delimited(file, text, separator)
    if not table.rows:
        raise DataError(f"{file.name}: the table has no rows")
    return table


def _read_text(file: Path, encoding: str) -> str:
    data = file.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8-sig":
        raise DataError(f"{file.name}: is UTF-16: set corpus.options.encoding=utf-16, or save it as UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file.name}: line {line}, byte {error.start} is not {encoding.removesuffix('-sig').upper()}: "
            "save it as UTF-8, or name its encoding, as in corpus.options.encoding=latin-1"
        ) from None
    except LookupError:
        raise DataError(f'corpus.options.encoding: unknown encoding "{encoding}"') from None
    # The csv module of Python 3.11 would accept it as a character.
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file.name}: line {line} holds a NUL byte: the file is broken or not text")
    return text


def _parse_delimited(file: Path, text: str, separator: str | None) -> Table:
    csv.field_size_limit(_MAX_FIELD_LENGTH)
    first = text.split("\n", 1)[0]
    separator = separator or ("\t" if file.suffix.lower() == ".tsv" else max(_SEPARATORS, key=first.count))
    if len(separator) != 1:
        raise DataError(f'corpus.options.separator: must be one character, got "{separator}"')
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    try:
        for fields in reader:
            if not columns:
                columns = _check_header([name.strip() for name in fields], file)
            elif fields:
                rows.append(_parse_row(fields, columns, file, len(rows) + 1))
    except csv.Error as error:
        raise DataError(f"{file.name}: line {reader.line_num}: {error}: check the quotes") from None
    return Table(file, columns, rows)


def _check_header(columns: list[str], file: Path) -> list[str]:
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f'{file.name}: column "{name}" occurs twice in the header')
    return columns


def _parse_row(fields: list[str], columns: list[str], file: Path, number: int) -> dict[str, Any]:
    if len(fields) != len(columns):
        raise DataError(
            f"{file.name}: row {number} has {len(fields)} fields, the header {len(columns)}: check its "
            "quotes, or set corpus.options.separator"
        )
    return dict(zip(columns, fields, strict=True))


def _parse_json_lines(file: Path, text: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in _numbered_lines(text):
        try:
            row = json.loads(line)
        except RecursionError:
            raise DataError(
                f"{file.name}: line {number} is nested too deeply: a row must be a flat object of columns"
            ) from None
        except ValueError as error:
            raise DataError(f"{file.name}: line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{file.name}: line {number} is not a JSON object of columns")
        rows.append(row)
    return Table(file, list(dict.fromkeys(name for row in rows for name in row)), rows)


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): a caption may contain U+2028, which is not a line end in JSON.
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _read_parquet(file: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name}: not a Parquet file: {str(error).splitlines()[0]}") from None
    return Table(file, table.column_names, table.to_pylist())
