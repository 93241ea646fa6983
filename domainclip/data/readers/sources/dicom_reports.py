"""Reports in a table, matched with files by a key: an attribute, or the name of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from domainclip.data.files.tables import Table
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources.dicom_studies import DicomFile
from domainclip.data.text.cells import cell_text, distinct_cells, of_column
from domainclip.errors import DataError


def match_by_attribute(
    held: Sequence[DicomFile],
    attribute: str,
    table: Table,
    key: str,
    multi_valued: Collection[str],
    log: ReadLog,
) -> list[DicomFile]:
    """The files, each with the rows whose key equals its attribute; several files may share a report.

    Columns that are `multi_valued` collect the values of all rows of a key.
    """
    rows = _by_key(table, key, log)
    keys = [file.attributes.get(attribute, "") for file in held]
    return _with_reports(held, keys, rows, table, multi_valued, log)


def match_by_name(
    held: Sequence[DicomFile],
    broken: Sequence[str],
    table: Table,
    key: str,
    multi_valued: Collection[str],
    log: ReadLog,
) -> list[DicomFile]:
    """The files, each with the rows whose key is its path in the corpus, or its name, with or without suffix.

    `broken` are paths of unreadable images: files of the same name do not get their reports.

    Raises: DataError for a key that matches several files.
    """
    rows = _by_key(table, key, log)
    names = [*(file.source.name for file in held), *broken]
    keys = [_matching_key(name, rows, set(names)) for name in names]
    for matched, files in Counter(filter(None, keys)).items():
        if files > 1:  # the row, not the name: file names can name patients
            raise DataError(
                f"{table.file.name}: row {rows[matched][0][0]}: its key is the name of {files} files: write "
                f'their paths in column "{key}", as in FOLDER/NAME.dcm'
            )
    matched_by_broken = {name for name in keys[len(held) :] if name}
    return _with_reports(held, keys[: len(held)], rows, table, multi_valued, log, matched_by_broken)


_Rows = dict[str, list[tuple[int, Mapping[str, Any]]]]  # by key: each with its number


def _by_key(table: Table, key: str, log: ReadLog) -> _Rows:
    """The rows by key; a row without a key matches no file, also none without the attribute."""
    rows: _Rows = {}
    for number, row in enumerate(table.rows, start=1):
        rows.setdefault(of_column(cell_text, row, key), []).append((number, row))
    if without_key := rows.pop("", []):
        log.add_note(f"{len(without_key)} of {len(table.rows)} rows have an empty {key}: they are not used")
    return rows


def _matching_key(name: str, rows: _Rows, names: set[str]) -> str:
    """The key of a file: its path, else its name; a key that is another file's path is that file's only."""
    path = PurePosixPath(name)
    bare = [str(path.with_suffix("")), path.name, path.stem]
    candidates = [name, *(candidate for candidate in bare if candidate not in names)]
    return next((candidate for candidate in candidates if candidate in rows), "")


def _with_reports(
    held: Sequence[DicomFile],
    keys: Sequence[str],
    rows: _Rows,
    table: Table,
    multi_valued: Collection[str],
    log: ReadLog,
    matched_by_broken: Collection[str] = (),
) -> list[DicomFile]:
    unmatched = sum(
        len(of_key) for key, of_key in rows.items() if key not in keys and key not in matched_by_broken
    )
    if unmatched:
        log.add_note(f"{unmatched} of {len(table.rows)} rows match no image: they are not used")
    differing: Counter[str] = Counter()
    values = {key: dict(_merge([row for _, row in rows[key]], multi_valued, differing)) for key in rows}
    if +differing:
        names = ", ".join(+differing)
        log.add_note(f"rows of one key differ in {names}: the first value is used")
    return [
        file.with_report(values[key]).in_row(rows[key][0][0]) if key in rows else file
        for file, key in zip(held, keys, strict=True)
    ]


def _merge(
    rows: Sequence[Mapping[str, Any]], multi_valued: Collection[str], differing: Counter[str]
) -> Iterator[tuple[str, Any]]:
    """A single row unchanged; of several, all values of multi-valued columns and the first of each other."""
    if len(rows) == 1:
        yield from rows[0].items()
        return
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(column) for row in rows]
        distinct = distinct_cells(cells)
        if column in multi_valued:
            yield column, distinct
        else:
            differing[column] += len(distinct) > 1
            yield column, next(iter(distinct), "")
