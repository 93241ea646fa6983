from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from domainclip.data.files.tables import find_table, read_table
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources.columns import resolve_columns
from domainclip.errors import DataError, ExitCode
from tests.data.made_corpora import card


def _file(folder: Path, data: bytes | str, name: str = "t.csv") -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def _error(file: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read_table(file, **options)
    assert caught.value.code == ExitCode.DATA
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_detected_in_the_header(tmp_path: Path, separator: str) -> None:
    text = separator.join(["a", "b"]) + "\n" + separator.join(["1", '"two, three; four\tfive|"']) + "\n"
    assert read_table(_file(tmp_path, text)).rows == [{"a": "1", "b": "two, three; four\tfive|"}]


def test_a_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    assert read_table(_file(tmp_path, "a\tb,c,d\n1\t2\n", "t.tsv")).columns == ["a", "b,c,d"]
    assert read_table(_file(tmp_path, "a,b\n1,2\n", "t.tsv"), separator=",").rows == [{"a": "1", "b": "2"}]


def test_fault_29_byte_order_marks_quotes_line_ends_and_blank_lines(tmp_path: Path) -> None:
    """Fault 29: a byte order mark is no part of the first column's name."""
    data = '\ufeffname,text\r\n1,"He said ""no""\r\nand left"\r\n\r\n2,plain\r\n'
    assert read_table(_file(tmp_path, data)).rows == [
        {"name": "1", "text": 'He said "no"\r\nand left'},
        {"name": "2", "text": "plain"},
    ]


def test_fault_29_a_field_of_200_kb_is_read_completely(tmp_path: Path) -> None:
    """Fault 29: longer than the default limit of the csv module."""
    assert len(read_table(_file(tmp_path, "a\n" + "x" * 200_000)).rows[0]["a"]) == 200_000


def test_fault_29_other_encodings_must_be_set(tmp_path: Path) -> None:
    """Fault 29: Latin-1 is not guessed; UTF-16 is read by its byte order mark."""
    file = _file(tmp_path, "a\nMünchen\n".encode("latin-1"))
    assert read_table(file, encoding="latin-1").rows == [{"a": "München"}]
    assert _error(file) == (
        "t.csv: line 2, byte 3 is not UTF-8: save it as UTF-8, or name its encoding, as in "
        "corpus.options.encoding=cp1252"
    )
    wide = _file(tmp_path, "a\nü\n".encode("utf-16"))
    assert read_table(wide, encoding="utf-16").rows == [{"a": "ü"}]
    by_mark = read_table(wide)
    assert by_mark.rows == [{"a": "ü"}]
    assert by_mark.notes == ("t.csv: is read as UTF-16, by its byte order mark",)
    assert _error(wide, encoding="utf8000") == 'corpus.options.encoding: unknown encoding "utf8000"'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2\nx,\0\n", "t.csv: line 3 holds a NUL byte: the file is broken or not text"),
        (
            "a,b\n1,2\n3,4,5\n",
            "t.csv: row 2 has 3 fields, the header 2: check its quotes, or set corpus.options.separator",
        ),
        (
            "a,b\n1\n",
            "t.csv: row 1 has 1 fields, the header 2: check its quotes, or set corpus.options.separator",
        ),
        ("a,a\n1,2\n", "t.csv: columns 1 and 2 of the first line have the same name: rename one"),
        (
            'a,b\n1,"two\n3,four\n',
            "t.csv: row 1 (line 2): a cell opens with a quote that is never closed: write a quote inside a cell "
            'twice (""), or set corpus.options.quoting=false',
        ),
        (
            'a,b\n1,"two" three\n',
            "t.csv: row 1 (line 2): text follows the closing quote of a cell: write a quote inside a cell twice "
            '(""), or set corpus.options.quoting=false',
        ),
        ("a,b\n", "t.csv: the table has no rows"),
        ("", "t.csv: the table has no rows"),
    ],
)  # fmt: skip
def test_fault_29_the_error_of_a_broken_table_names_the_location(
    tmp_path: Path, data: str, message: str
) -> None:
    """Fault 29: NUL bytes, other numbers of fields, open quotes."""
    assert _error(_file(tmp_path, data)) == message


def test_fault_29_utf_16_of_either_end_and_a_truncated_letter(tmp_path: Path) -> None:
    """Fault 29: with and without a byte order mark; half a letter at the end."""
    for encoding in ("utf-16-le", "utf-16-be"):
        file = _file(tmp_path, "a,b\n1,ü\n".encode(encoding))
        assert read_table(file, encoding=encoding).rows == [{"a": "1", "b": "ü"}]
        assert "is not UTF-8: save it as UTF-8, or name its encoding" in _error(file)
        # With ASCII letters only, it is valid UTF-8 with NUL bytes, and is reported as such.
        plain = _file(tmp_path, "a,b\n1,u\n".encode(encoding))
        assert _error(plain) == (
            f"t.csv: line 1 holds a NUL byte: it may be UTF-16: set corpus.options.encoding={encoding}"
        )
    assert _error(_file(tmp_path, "a\nMün".encode()[:-2])) == (
        "t.csv: line 2, byte 3 is not UTF-8: save it as UTF-8, or name its encoding, as in "
        "corpus.options.encoding=cp1252"
    )


def test_fault_29_the_error_of_a_wrong_separator_shows_the_header(tmp_path: Path) -> None:
    """Fault 29: a single column with all names shows the fault."""
    table = read_table(_file(tmp_path, "image;text\na.png;x\n"), separator=",")
    assert table.columns == ["image;text"]
    with pytest.raises(DataError) as caught:
        resolve_columns(card(columns={"image": "image"}), table.columns, "t.csv", ReadLog())
    assert (
        str(caught.value)
        == 't.csv: no column "image" (corpus.columns.image): did you mean "image;text"? there are: image;text.'
    )


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": ["x", "y\u2028z"]}, {"a": None, "c": "ü"}]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    table = read_table(_file(tmp_path, text, "t.jsonl"))
    assert (table.columns, table.rows) == (["a", "b", "c"], rows)
    broken = _file(tmp_path, '{"a": 1}\n{"a": \n', "t.jsonl")
    assert _error(broken) == "t.jsonl: line 2 is not JSON: Expecting value: line 1 column 7 (char 6)"
    assert _error(_file(tmp_path, "1\n", "t.jsonl")) == "t.jsonl: line 1 is not a JSON object of columns"


def test_parquet(tmp_path: Path) -> None:
    rows = [{"a": 1, "image": {"bytes": b"x", "path": None}}, {"a": 2, "image": {"bytes": None, "path": "y"}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows == rows
    assert _error(_file(tmp_path, "no", "u.parquet")).startswith("u.parquet: not a Parquet file: ")


@pytest.mark.parametrize("name", ["column", "struct", "inner"])
def test_names_of_a_parquet_schema_that_are_not_utf8(tmp_path: Path, name: str) -> None:
    columns = {"column": ["a.png"], "struct": pyarrow.array([{"inner": 1}])}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet", store_schema=False)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(name.encode(), b"\xff" * len(name)))
    assert _error(tmp_path / "t.parquet") == (
        "t.parquet: the name of a column or field is not UTF-8: write the file again with another name"
    )


def test_missing_files_and_files_that_are_not_tables(tmp_path: Path) -> None:
    assert _error(tmp_path / "none.csv") == f"{tmp_path / 'none.csv'}: no such file: check corpus.path"
    assert _error(_file(tmp_path, "x", "t.docx")) == (
        't.docx: unknown kind of table ".docx": use one of .csv, .tsv, .jsonl, .ndjson, .parquet, .json, .xlsx'
    )
    assert _error(_file(tmp_path, "x", "t.xls")) == (
        't.xls: unknown kind of table ".xls": save it as .xlsx or CSV UTF-8'
    )


def test_the_table_of_a_folder(tmp_path: Path) -> None:
    assert find_table(tmp_path) is None
    file = _file(tmp_path, "{}", "metadata.jsonl")
    assert find_table(tmp_path) == file
    assert find_table(file) == file
    assert find_table(tmp_path, ("reports",)) is None


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    file = _file(tmp_path, '{"a": 1}\n{"a":' + "[" * 200_000 + "\n", "t.jsonl")
    assert _error(file) == "t.jsonl: line 2 is nested too deeply: a row must be a flat object of columns"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"PK\x03\x04",
            "is an Excel workbook or another zip file: save it as CSV UTF-8, or name it .xlsx or unpack it",
        ),
        (b"\xd0\xcf\x11\xe0", "is a workbook of an old Excel (.xls): save it as CSV UTF-8"),
        (b"PAR1", "is a Parquet file: name it .parquet"),
        (b"\x1f\x8b\x08", "is compressed: unpack it with gunzip"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "is a pointer of Git LFS and not the table: fetch it with git lfs pull",
        ),
        (b"<!DOCTYPE html>", "is a web page and not the table: download the file itself"),
    ],
)
def test_files_of_other_kinds_under_the_name_of_a_table(tmp_path: Path, data: bytes, message: str) -> None:
    assert _error(_file(tmp_path, data)) == f"t.csv: {message}"
    assert _error(_file(tmp_path, data, "t.jsonl")) == f"t.jsonl: {message}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8"])
def test_a_byte_order_mark_is_obeyed(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    for name, text in (("t.csv", "a\tb\r\n1\tü\r\n"), ("t.jsonl", '{"a": "1", "b": "ü"}\n')):
        file = _file(tmp_path, f"{mark}{text}".encode(encoding), name)
        assert read_table(file).rows == read_table(file, encoding=encoding).rows == [{"a": "1", "b": "ü"}]


def test_windows_1252_is_not_guessed(tmp_path: Path) -> None:
    file = _file(tmp_path, "image;legende\r\na.png;l’été\r\n".encode("cp1252"))
    assert "corpus.options.encoding=cp1252" in _error(file)
    assert read_table(file, encoding="cp1252").rows == [{"image": "a.png", "legende": "l’été"}]


def test_json_documents(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": 2, "b ": "x"}]
    for document in (rows, {"images": rows, "dataset": "x"}):
        table = read_table(_file(tmp_path, json.dumps(document, indent=1), "t.json"))
        assert (table.columns, table.rows) == (["a", "b"], [{"a": 1}, {"a": 2, "b": "x"}])
    assert read_table(_file(tmp_path, json.dumps(rows), "t.jsonl")).columns == ["a", "b"]
    assert len(read_table(_file(tmp_path, '{"a": 1}\r{"a": 2}\r', "t.jsonl")).rows) == 2
    coco = {"images": rows, "annotations": rows}
    assert _error(_file(tmp_path, json.dumps(coco), "t.json")) == (
        "t.json: holds 2 lists of objects, not one: join them, and write the rows as JSON lines"
    )
    assert _error(_file(tmp_path, "[1]", "t.json")) == (
        "t.json: is no list of JSON objects: write one object of columns per row"
    )
    assert _error(_file(tmp_path, "[" * 200_000, "t.json")) == (
        "t.json: is nested too deeply: write a list of objects"
    )


def test_names_that_become_equal_are_refused(tmp_path: Path) -> None:
    for name, text in (("t.jsonl", '{"a": 1, "a ": 2}'), ("t.json", '[{"é": 1, "e\u0301": 2}]')):
        assert "occurs twice: two names differ only in space" in _error(_file(tmp_path, text, name))
    table = pyarrow.table([[1], [2]], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert _error(tmp_path / "t.parquet") == 't.parquet: column "a" occurs twice: rename one'


def test_values_of_parquet_that_python_cannot_hold(tmp_path: Path) -> None:
    wrong = pyarrow.StringArray.from_buffers(
        1, pyarrow.py_buffer(b"\0\0\0\0\x01\0\0\0"), pyarrow.py_buffer(b"\xff")
    )
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x"], "b": wrong}), tmp_path / "t.parquet")
    assert _error(tmp_path / "t.parquet") == (
        't.parquet: column "b" is not valid string: write it again, or without it'
    )


def test_workbooks(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    workbook.active.append(["image ", "caption", "year", None])
    workbook.active.append(["a.png", "a cat", 1984.0])
    workbook.active.append([])
    workbook.active.append(["b.png", None, True])
    workbook.active.append(["c.png", datetime(2020, 1, 2), 0.5])
    workbook.create_sheet("notes").append(["x"])
    workbook.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.columns == ["image", "caption", "year"]
    assert [list(row.values()) for row in table.rows] == [
        ["a.png", "a cat", "1984"],
        ["b.png", "", "TRUE"],
        ["c.png", "2020-01-02", "0.5"],
    ]
    assert table.notes == ("t.xlsx: the first of 2 sheets is read",)
    (tmp_path / "t.xlsx").rename(tmp_path / "t.csv")
    assert "is an Excel workbook" in _error(tmp_path / "t.csv")
    assert (
        _error(_file(tmp_path, "x", "u.xlsx")) == "u.xlsx: not an Excel workbook (BadZipFile): save it again"
    )
