"""Quotes in CSV and TSV: what encloses cells, what is a character, and what swallows rows."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from domainclip.data.files.tables import Table, read_table
from domainclip.errors import DataError

REMEDY = 'write a quote inside a cell twice (""), or set corpus.options.quoting=false'


def _read(folder: Path, text: str, name: str, **options: bool) -> Table:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return read_table(folder / name, **options)


def _lines(captions: dict[int, str], separator: str = ",", end: str = "\n", reverse: bool = False) -> str:
    """Twelve rows without any quoting, as naive programs write them."""
    rows = [("image", "caption"), *((f"img/{i:02}.png", captions.get(i, f"thing {i}")) for i in range(12))]
    return "".join(separator.join(row[::-1] if reverse else row) + end for row in rows)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "|"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_quote_that_swallows_rows_is_an_error_that_names_its_row(
    tmp_path: Path, separator: str, end: str, reverse: bool
) -> None:
    text = _lines({3: '"Untitled', 8: 'a ruler of 12"'}, separator, end, reverse)
    with pytest.raises(DataError) as caught:
        _read(tmp_path, text, "t.csv")
    assert str(caught.value) == (
        "t.csv: row 4: a cell in quotes goes from line 5 to line 10, and each line is a row by itself: "
        f"{REMEDY}; if it is one cell, set corpus.options.quoting=true"
    )
    assert len(_read(tmp_path, text, "t.csv", quoting=False).rows) == 12
    assert len(_read(tmp_path, text, "t.csv", quoting=True).rows) == 7


@pytest.mark.parametrize(
    ("captions", "fault"),
    [
        ({3: '"Untitled'}, "a cell opens with a quote that is never closed"),
        ({3: '"Untitled', 8: '"Study'}, "text follows the closing quote of a cell"),
        ({3: '"Untitled" by X'}, "text follows the closing quote of a cell"),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_that_names_its_row(
    tmp_path: Path, captions: dict[int, str], fault: str
) -> None:
    text = _lines(captions)
    with pytest.raises(DataError) as caught:
        _read(tmp_path, text, "t.csv")
    assert str(caught.value) == f"t.csv: row 4 (line 5): {fault}: {REMEDY}"
    rows = _read(tmp_path, text, "t.csv", quoting=False).rows
    assert [row["caption"] for row in rows] == [captions.get(i, f"thing {i}") for i in range(12)]


def test_ids_without_suffix_and_a_mixture_of_names(tmp_path: Path) -> None:
    """The rows are recognized by a code, and by most of the lines."""
    head = 'study,report\nA1001,"Untitled\n'
    for names in (("A1002", "A1003"), ("A1002", "x, y"), ("A1002",)):
        body = "".join(f"{name},thing\n" for name in names)
        with pytest.raises(DataError, match="row 1: a cell in quotes goes from line 2"):
            _read(tmp_path, f'{head}{body}A1009,"\n', "t.csv")


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
@pytest.mark.parametrize(
    "captions",
    [{3: '"Untitled', 8: 'a ruler of 12"'}, {3: '"Untitled'}, {3: '"Untitled" by X', 4: '"A" and "B"'}],
)
def test_text_with_tabs_as_of_cc3m_is_read_without_quoting(
    tmp_path: Path, name: str, captions: dict[int, str]
) -> None:
    table = _read(tmp_path, _lines(captions, "\t"), name)
    assert [row["caption"] for row in table.rows] == [captions.get(i, f"thing {i}") for i in range(12)]
    assert table.notes == (
        f"{name}: quotes are read as characters (set corpus.options.quoting to change it)",
    )


def test_text_with_tabs_whose_quotes_enclose_cells(tmp_path: Path) -> None:
    text = 'image\tcaption\na.png\t"He said ""no"""\nb.png\t"one\ttwo"\nc.png\t"two\nlines"\n'
    table = _read(tmp_path, text, "t.tsv")
    assert [row["caption"] for row in table.rows] == ['He said "no"', "one\ttwo", "two\nlines"]
    assert table.notes == ()


def test_quotes_inside_a_cell_are_characters(tmp_path: Path) -> None:
    rows = _read(tmp_path, _lines({3: 'a 12" ruler', 4: '5" by 7"'}), "t.csv").rows
    assert (rows[3]["caption"], rows[4]["caption"]) == ('a 12" ruler', '5" by 7"')


def test_reports_of_several_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A control: nothing that the csv module writes is refused or changed."""
    draw = random.Random(0)
    words = ["clear", "lungs,", "heart", "normal", "effusion", "no,", "left.", "right:", "lobe", "12", "cm"]
    for trial in range(150):
        separator, columns = draw.choice(",;\t|"), draw.choice([2, 3, 4])
        rows = [["image", "report", "site", "kind"][:columns]]
        for number in range(draw.randint(1, 8)):
            report = "".join(draw.choice(words) + draw.choice(' \n\t,";') for _ in range(draw.randint(1, 12)))
            name = draw.choice([f"img/{number}.png", f"P{number}", str(number), f"IMG {number}.png"])
            rows.append([name, report, "x", "y"][:columns])
        stream = io.StringIO()
        end = draw.choice(["\n", "\r\n"])
        csv.writer(stream, delimiter=separator, quoting=trial % 3, lineterminator=end).writerows(rows)
        table = _read(tmp_path, stream.getvalue(), "t.csv")
        assert [table.columns, *(list(row.values()) for row in table.rows)] == rows


def test_the_line_of_excel_that_names_the_separator(tmp_path: Path) -> None:
    table = _read(tmp_path, '\ufeffsep=;\r\nimage;caption\r\na.png;"x, y"\r\n', "t.csv")
    assert table.rows == [{"image": "a.png", "caption": "x, y"}]
    with pytest.raises(DataError, match=r"row 1 \(line 3\)"):
        _read(tmp_path, 'sep=;\nimage;caption\na.png;"x\n', "t.csv")


def test_a_header_in_quotes_does_not_hide_the_separator(tmp_path: Path) -> None:
    assert _read(tmp_path, '"image, file";caption\na.png;x\n', "t.csv").columns == ["image, file", "caption"]


def test_empty_columns_and_rows_that_a_spreadsheet_adds(tmp_path: Path) -> None:
    table = _read(tmp_path, "image,caption,,\na.png,x,,\n,,,\n,,,\n", "t.csv")
    assert table.rows == [{"image": "a.png", "caption": "x"}]
    assert table.notes == ("t.csv: 2 columns without a name are not read",)


@pytest.mark.parametrize(
    "header",
    ["\u00a0image\u00a0,caption ", "\ufeffimage,\u200bcaption", "image,cap\u00adtion", '"image "," caption"'],
)
def test_space_and_invisible_characters_are_no_part_of_a_name(tmp_path: Path, header: str) -> None:
    assert _read(tmp_path, f"{header}\na.png,x\n", "t.csv").columns == ["image", "caption"]


def test_names_in_composed_form(tmp_path: Path) -> None:
    assert _read(tmp_path, "image,le\u0301gende\na.png,x\n", "t.csv").columns == ["image", "légende"]
    with pytest.raises(DataError) as caught:
        _read(tmp_path, "image,le\u0301gende,légende\na.png,x,y\n", "t.csv")
    assert str(caught.value) == "t.csv: columns 2 and 3 of the first line have the same name: rename one"


def test_a_table_without_a_header_is_never_quoted(tmp_path: Path) -> None:
    for first, message in (
        (
            "Jane Doe\thttp://x/1.jpg",
            "t.tsv: column 2 of the first line is a file name: add a line with the ",
        ),
        (
            f"img\t{'Jane Doe ' * 30}",
            "t.tsv: column 2 has a name of 269 characters: check that the first line ",
        ),
    ):
        with pytest.raises(DataError) as caught:
            _read(tmp_path, f"{first}\nx\ty\n", "t.tsv")
        assert str(caught.value).startswith(message)
        assert "Doe" not in str(caught.value)
