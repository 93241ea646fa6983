"""Rows of CSV and TSV text. An open quote that swallows rows is an error that names the row it begins in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.data.files.column_names import check_header, column_name
from domainclip.errors import DataError

Rows = list[dict[str, Any]]

_SEPARATORS = ("\t", ",", ";", "|")
_MAX_FIELD_LENGTH = 16 * 2**20  # characters; the csv module's default of 131,072 would refuse long reports
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)', re.IGNORECASE)  # the first line of Excel
_LINE = re.compile(r"[^\r\n]*")
_QUOTED = re.compile(r'"[^"]*"')
_WEAK = ("word", "number")  # lines of a text may begin with these: only many lines in a row decide
_MANY_LINES = 3
_MIN_CODE = 3  # characters
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}(?:\.gz)?$")
_REMEDY = 'write a quote inside a cell twice (""), or set corpus.options.quoting=false'


def parse_delimited(
    text: str, name: str, separator: str | None, quoting: bool | None
) -> tuple[list[str], Rows, list[str]]:
    """The columns, the rows by column, and notes.

    `quoting`: a cell in quotes may hold separators and line ends; false: quotes are characters; None: true,
    but for text separated by tabs whose quotes do not enclose cells, as in the releases of CC3M and CC12M.

    Raises: DataError naming the row, the line and the remedy.
    """
    csv.field_size_limit(_MAX_FIELD_LENGTH)
    whole = text
    text, separator = _split_separator_line(text, name, separator)
    first_line = 1 if text is whole else 2
    if len(separator) != 1 or separator in '"\r\n':
        raise DataError("corpus.options.separator: must be one character, and no quote or line end")
    notes, is_guessed = [], quoting is None
    if quoting is None:
        quoting = separator != "\t" or _encloses_cells(text, separator)
        if not quoting and _opening_quotes(text, separator):
            notes.append(f"{name}: quotes are read as characters (set corpus.options.quoting to change it)")
    columns, rows = _Parser(name, separator, quoting, is_guessed, first_line).parse(text)
    if columns and not all(columns):
        unnamed = columns.count("")
        notes.append(f"{name}: {unnamed} columns without a name are not read")
        columns = [column for column in columns if column]
    return columns, rows, notes


def read_header(text: str, name: str, separator: str | None) -> list[str]:
    """The names of the columns, from a text that may end after the first line.

    Raises: csv.Error for a header in broken quotes, StopIteration for an empty text.
    """
    text, separator = _split_separator_line(text, name, separator)
    fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    return [name for name in map(column_name, fields) if name]


def _split_separator_line(text: str, name: str, separator: str | None) -> tuple[str, str]:
    """The text without a first line that names the separator, and the separator: given, named or guessed."""
    if match := _SEPARATOR_LINE.match(text):
        text, separator = text[match.end() :], separator or match[1]
    return text, separator or guess_separator(text, name)


def guess_separator(text: str, name: str) -> str:
    """The character between the cells: a tab in .tsv, else the most frequent one of the first line."""
    if match := _SEPARATOR_LINE.match(text):
        return match[1]
    first = _QUOTED.sub("", _LINE.match(text)[0])  # type: ignore[index]
    return "\t" if name.lower().endswith(".tsv") else max(_SEPARATORS, key=first.count)


@dataclass
class _Parser:
    """Reads the rows of one text."""

    name: str  # of the file
    separator: str
    quoting: bool
    refuses_swallowed: bool
    line: int  # in which the current row begins

    def parse(self, text: str) -> tuple[list[str], Rows]:
        """The columns and the rows."""
        lines: list[str] = []  # of the current row
        reader = csv.reader(
            _recorded(text, lines),
            delimiter=self.separator,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
        )
        columns: list[str] = []
        rows: Rows = []
        try:
            for fields in reader:
                if not columns:
                    columns = [column_name(field) for field in fields]
                    check_header(columns, self.name)
                elif any(fields):  # a spreadsheet ends with rows of empty cells
                    if len(lines) > 1 and self.refuses_swallowed:
                        self._refuse_swallowed(lines, len(columns), len(rows) + 1)
                    rows.append(_row(fields, columns, self.name, len(rows) + 1))
                self.line += len(lines)
                lines.clear()
        except csv.Error as error:
            place = f"row {len(rows) + 1}" if columns else "the header"
            raise DataError(f"{self.name}: {place} (line {self.line}): {_fault(error)}: {_REMEDY}") from None
        return columns, rows

    def _refuse_swallowed(self, lines: Sequence[str], columns: int, number: int) -> None:
        if is_swallowed(lines, self.separator, columns):
            lines_of_row = f"from line {self.line} to line {self.line + len(lines) - 1}"
            raise DataError(
                f"{self.name}: row {number}: a cell in quotes goes {lines_of_row}, and each line is a row by "
                f"itself: {_REMEDY}; if it is one cell, set corpus.options.quoting=true"
            )


def _fault(error: csv.Error) -> str:
    if "expected after" in str(error):
        return "text follows the closing quote of a cell"
    if "field limit" in str(error) or "field larger" in str(error):
        return f"a cell is longer than {_MAX_FIELD_LENGTH} characters"
    return "a cell opens with a quote that is never closed"


def _recorded(text: str, lines: list[str]) -> Iterator[str]:
    """The lines of a text, each also appended to `lines`."""
    for line in io.StringIO(text, newline=""):
        lines.append(line)
        yield line


def _row(fields: list[str], columns: list[str], name: str, number: int) -> dict[str, Any]:
    if len(fields) != len(columns):
        raise DataError(
            f"{name}: row {number} has {len(fields)} fields, the header {len(columns)}: check its "
            "quotes, or set corpus.options.separator"
        )
    row = dict(zip(columns, fields, strict=True))
    row.pop("", None)
    return row


def _opening_quotes(text: str, separator: str) -> int:
    """The number of cells that begin with a quote."""
    return text.startswith('"') + sum(text.count(f'{before}"') for before in (separator, "\r", "\n"))


def _encloses_cells(text: str, separator: str) -> bool:
    """Whether the quotes of a text enclose cells; false when they are characters of the cells."""
    opening, between = _opening_quotes(text, separator), re.escape(separator)
    if not opening:
        return False
    closed = rf'(?:\A|[{between}\r\n])"(?:[^"\r\n]|"")*"(?=[{between}\r\n]|\Z)'
    if opening == sum(1 for _ in re.finditer(closed, text)):
        return True
    # A cell that is not closed in its line: where every line has all its cells, no quote encloses one.
    return len({line.count(separator) for line in io.StringIO(text, newline="") if line.strip("\r\n")}) > 1


def is_swallowed(lines: Sequence[str], separator: str, columns: int) -> bool:
    """Whether the lines of one row, which has a cell of several lines, are rows by themselves.

    Lines of a report in quotes are none: they have other numbers of cells, or no file name or code where the
    first line has one.
    """
    # The usual report, at the least cost; its first and last line hold other cells and quotes as well.
    between = lines[1:-1]
    if columns < 2 or 2 * sum(line.count(separator) == columns - 1 for line in between) < len(between) - 1:
        return False
    first, *others = (_cells(text.rstrip("\r\n"), separator, columns) for text in lines)
    if first is None:
        return False
    for column, kind in enumerate(map(_kind, first)):
        alike = sum(other is not None and _kind(other[column]) == kind for other in others)
        is_sure = 2 * alike >= len(others)
        if kind and (is_sure if kind not in _WEAK else alike == len(others) >= _MANY_LINES):
            return True
    return False


def _cells(line: str, separator: str, columns: int) -> list[str] | None:
    """The cells of a line by itself; None when it has another number of them."""
    plain = line.split(separator)
    if len(plain) == columns:
        return plain
    cells = next(csv.reader([line], delimiter=separator), [])
    return cells if len(cells) == columns else None


def _kind(value: str) -> str:
    """What marks a cell as no text: the suffix of a file name, or being one word, number or code; else ""."""
    value = value.strip()
    if _FILE_SUFFIX.search(value):
        return "file name"
    if not value or '"' in value or re.search(r"\s", value):
        return ""
    if not re.search(r"\d", value):
        return "word"
    if len(value) < _MIN_CODE:
        return "number"
    return f"code of {len(value)} digits" if value.isdecimal() else f"code of {len(value)} characters"
