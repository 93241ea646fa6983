"""Reports of a table that are matched with files by a key: an attribute, or the name of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from domainclip.data.files.tables import Table
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources.dicom_studies import DicomFile
from domainclip.data.row_captions import cell_text
from domainclip.errors import DataError


def match_by_attribute(
    held: Sequence[DicomFile],
    attribute: str,
    table: Table,
    key: str,
    gathered: Collection[str],
    log: ReadLog,
) -> list[DicomFile]:
    """The files, each with the rows whose key is its attribute; one report may be of several files.

    Columns that are `gathered` hold what all rows of a key say.
    """
    rows = _by_key(table, key, log)
    keys = [file.attributes.get(attribute, "") for file in held]
    return _said(held, keys, rows, table, gathered, log)


def match_by_name(
    held: Sequence[DicomFile],
    broken: Sequence[str],
    table: Table,
    key: str,
    gathered: Collection[str],
    log: ReadLog,
) -> list[DicomFile]:
    """The files, each with the rows whose key is its path in the corpus, or its name; suffixes may lack.

    `broken` are paths of images that cannot be read: their reports are not those of their namesakes.

    Raises: DataError for a key that several files answer to.
    """
    rows = _by_key(table, key, log)
    names = [*(file.source.name for file in held), *broken]
    keys = [_answer(name, rows, set(names)) for name in names]
    for one, files in Counter(filter(None, keys)).items():
        if files > 1:  # the row and no name: names of files name patients
            raise DataError(
                f"{table.file.name}: row {rows[one][0][0]}: its key is the name of {files} files: write "
                f'their paths in column "{key}", as in FOLDER/NAME.dcm'
            )
    taken = {one for one in keys[len(held) :] if one}
    return _said(held, keys[: len(held)], rows, table, gathered, log, taken)


_Rows = dict[str, list[tuple[int, Mapping[str, Any]]]]  # by key: each with its number


def _by_key(table: Table, key: str, log: ReadLog) -> _Rows:
    """The rows by key. A row without one belongs to nobody, least of all to files that lack the attribute."""
    rows: _Rows = {}
    for number, row in enumerate(table.rows, start=1):
        rows.setdefault(cell_text(row.get(key)).strip(), []).append((number, row))
    if nameless := rows.pop("", []):
        log.add_note(f"{len(nameless)} of {len(table.rows)} rows have an empty {key}: they are not used")
    return rows


def _answer(name: str, rows: _Rows, names: set[str]) -> str:
    """The key that a file answers to: its path before its name; a key that is a path is that file's alone."""
    path = PurePosixPath(name)
    bare = [str(path.with_suffix("")), path.name, path.stem]
    answers = [name, *(one for one in bare if one not in names)]
    return next((one for one in answers if one in rows), "")


def _said(
    held: Sequence[DicomFile],
    keys: Sequence[str],
    rows: _Rows,
    table: Table,
    gathered: Collection[str],
    log: ReadLog,
    taken: Collection[str] = (),
) -> list[DicomFile]:
    left = sum(len(own) for key, own in rows.items() if key not in keys and key not in taken)
    if left:
        log.add_note(f"{left} of {len(table.rows)} rows match no image: they are not used")
    differing: Counter[str] = Counter()
    values = {key: dict(_merged([row for _, row in rows[key]], gathered, differing)) for key in rows}
    if +differing:
        names = ", ".join(+differing)
        log.add_note(f"rows of one key differ in {names}: the first that says something counts")
    return [file.with_report(values.get(key, {})) for file, key in zip(held, keys, strict=True)]


def _merged(
    rows: Sequence[Mapping[str, Any]], gathered: Collection[str], differing: Counter[str]
) -> Iterator[tuple[str, Any]]:
    """One row as it is; of several, all that the gathered columns say, and the first value of each other."""
    if len(rows) == 1:
        yield from rows[0].items()
        return
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(column) for row in rows]
        if column in gathered:
            texts = [one for cell in cells for one in (cell if isinstance(cell, (list, tuple)) else [cell])]
            yield column, list(dict.fromkeys(text for text in map(cell_text, texts) if text))
        else:
            filled = list(dict.fromkeys(text for text in map(cell_text, cells) if text))
            differing[column] += len(filled) > 1
            yield column, next((cell for cell in cells if cell_text(cell)), "")
