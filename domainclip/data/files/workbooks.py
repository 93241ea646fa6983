"""The first sheet of an Excel workbook (.xlsx), its cells as the text that they show."""

from __future__ import annotations

import zipfile
from contextlib import closing
from datetime import datetime, time
from pathlib import Path
from typing import Any

from domainclip.data.files.column_names import check_header, column_name
from domainclip.errors import DataError, library

_MAX_BYTES = 2**31  # unpacked: a small file may unpack to more than the memory


def read_workbook(file: Path) -> tuple[list[str], list[dict[str, Any]], tuple[str, ...]]:
    """The columns, the rows by column, and notes.

    Formulas are their last values. Images that lie on the sheet are not read.

    Raises: DataError for a file that is no workbook; RecipeError when openpyxl is not installed.
    """
    openpyxl = library(
        "openpyxl",
        f'{file.name}: needs openpyxl: pip install "domainclip[excel]", or save it as CSV UTF-8',
    )
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_BYTES:
            raise DataError(f"{file.name}: unpacks to {size} bytes: save it as CSV UTF-8")
        with closing(openpyxl.load_workbook(file, read_only=True, data_only=True)) as workbook:
            sheets = workbook.worksheets
            lines = [[_text(cell) for cell in line] for line in sheets[0].iter_rows(values_only=True)]
    except DataError:
        raise
    except Exception as error:  # openpyxl raises errors of many kinds, some of which quote the file
        raise DataError(
            f"{file.name}: not an Excel workbook ({type(error).__name__}): save it again"
        ) from None
    notes = [f"{file.name}: the first of {len(sheets)} sheets is read"] if len(sheets) > 1 else []
    filled = [line for line in lines if any(line)]
    if not filled:
        return [], [], tuple(notes)
    columns = [column_name(cell) for cell in filled[0]]
    check_header(columns, file.name)
    rows = [{name: cell for name, cell in zip(columns, line, strict=False) if name} for line in filled[1:]]
    return [name for name in columns if name], [row for row in rows if any(row.values())], tuple(notes)


def _text(cell: Any) -> str:
    """A cell as the text that Excel shows in its usual format."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ")
    return str(cell)
