"""Tables as people save them, and tables that are broken."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

from tests.fuzz import documents
from tests.fuzz.corpora import image_name
from tests.fuzz.oracle import CANARY

# Captions of one line that no reader may take for anything else than a text.
PLAIN_TEXTS = [
    f"{text} {CANARY}"
    for text in (
        *(
            "a red square",
            "chest x-ray, no finding.",
            "Rouen Cathedral; west façade",
            "12,5 cm | oil",
            "Größe: 3 × 4",
        ),
        *(
            'the "Night Watch"',
            "it's a dog's toy",
            "a  b",
            "中文 标题",
            "שלום",
            "e\u0301tude",
            "🙂 smile",
            "tab\there",
            "50 %",
        ),
        *(
            "-5 °C",
            "=SUM(A1)",
            "+1",
            "0012",
            "2024-01-01",
            "[Untitled]",
            "(Paris)",
            "#12",
            "a\\nb",
            "\\",
            "C:\\x",
            "<b>x</b>",
        ),
    )
]
_PLAIN = st.sampled_from(PLAIN_TEXTS)
_WORDS = st.sampled_from(
    ["", " ", "NA", "N/A", "None", "null", "<NA>", "nan", "NaN", "-", "?", "\ufeff", "\u200b"]
)
_ODD = st.sampled_from(
    [
        f"['{CANARY} a', 'b']",
        f'["{CANARY} a", "b"]',
        f"{{'raw': '{CANARY}'}}",
        f'{{"raw": "{CANARY}", "tokens": ["a"]}}',
        f"b'{CANARY}'",
        f"['{CANARY}",
        f"[{{'from': 'human', 'value': '<image>'}}, {{'from': 'gpt', 'value': '{CANARY}'}}]",
        f"array(['{CANARY}'], dtype=object)",
        f'"{CANARY}',
        f'"{CANARY}" and more',
        f'{CANARY} 5" long',
        f"line one\nline two {CANARY}",
        f"line one\r\nline two {CANARY}",
        f"\x0b{CANARY}\x1b[31m",
        f"{CANARY}\u2028next",
        f"{CANARY} " + "word " * 4000,
    ]
)
_DELIMITED_CELLS = (
    _PLAIN | _PLAIN | _WORDS | _ODD | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
_LEAVES = (
    _PLAIN
    | _WORDS
    | _ODD
    | st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([f"\ud800{CANARY}", 1e400])
)
JSON_CELLS = _PLAIN | st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["raw", "text", "caption", "from", "value", "role", "content", "bytes", "path", "x", ""]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
ENCODINGS = [
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "latin-1",
    "cp1252",
    "cp1251",
    "shift_jis",
    "utf-32",
]


@dataclass(frozen=True)
class Sheet:
    """A table that was written correctly."""

    name: str
    data: bytes
    captions: dict[str, Any]  # by image name
    encoding: str  # "" for binary formats

    def header(self) -> str:
        """The first line that is not blank, or the keys of JSON; of a broken table in any encoding."""
        encoded = self.data.decode(self.encoding or "latin-1", "replace"), self.data.decode("latin-1")
        texts = [text.replace("\0", "").lstrip("\ufeff\xff\xfe\xef\xbb\xbf \t\r\n") for text in encoded]
        if self.name.endswith("l"):
            return "".join(key for text in texts for key in re.findall(r'"[^"]*"\s*:', text))
        return "".join(re.split("[\r\n]", text)[0] for text in texts) if self.encoding else ""

    def __repr__(self) -> str:
        return f"{self.name} {self.encoding} {self.data!r}"


@st.composite
def delimited(draw: st.DrawFn) -> Sheet:
    """CSV or TSV by Python's own writer, which quotes as Excel does."""
    captions = draw(st.lists(_DELIMITED_CELLS, min_size=1, max_size=5))
    separator = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    quoting = draw(
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    )
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    header = draw(
        st.sampled_from(
            [["file_name", "text", "label"], [" file_name", "text ", "label"], ["Image", "Caption", "Label"]]
        )
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(header)
    labels = draw(st.sampled_from([["red"], ["red", ""], [CANARY, "0"]]))
    for number, caption in enumerate(captions):
        writer.writerow([image_name(number), caption, labels[number % len(labels)]])
    body = text.getvalue()
    if draw(st.integers(0, 15)) == 0:
        body = draw(st.sampled_from([f"sep={separator}{end}", end, "# exported\n", " "])) + body
    if draw(st.integers(0, 5)) == 0:
        body += draw(st.sampled_from([end * 3, separator * 2 + end, " ", "\x1a", end + separator]))
    encoding = draw(st.sampled_from(ENCODINGS))
    name = (
        "metadata.tsv"
        if separator == "\t"
        else draw(st.sampled_from(["metadata.csv"] * 9 + ["metadata.tsv"]))
    )
    return Sheet(
        name, body.encode(encoding, "replace"), {image_name(n): c for n, c in enumerate(captions)}, encoding
    )


@st.composite
def json_lines(draw: st.DrawFn) -> Sheet:
    """JSON lines whose cells are of any type."""
    captions = draw(st.lists(JSON_CELLS, min_size=1, max_size=4))
    rows = [{"file_name": image_name(n), "text": caption} for n, caption in enumerate(captions)]
    if draw(st.integers(0, 3)) == 0:
        rows[0]["label"] = draw(JSON_CELLS)
    if draw(st.integers(0, 7)) == 0:
        rows[-1]["split"] = draw(JSON_CELLS)
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    text = end.join(json.dumps(row, ensure_ascii=draw(st.booleans())) for row in rows) + end
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16"]))
    return Sheet(
        "metadata.jsonl",
        text.encode(encoding, "backslashreplace"),
        {image_name(n): c for n, c in enumerate(captions)},
        encoding,
    )


_COLUMNS = st.sampled_from(
    [
        (pyarrow.string(), [f"a {CANARY}", None, "", "NA"]),
        (pyarrow.large_string(), [f"a {CANARY}"]),
        (pyarrow.list_(pyarrow.string()), [[f"a {CANARY}", "b"], [], None, [None]]),
        (pyarrow.list_(pyarrow.list_(pyarrow.string())), [[[f"a {CANARY}"], []], None]),
        (
            pyarrow.struct([("raw", pyarrow.string()), ("n", pyarrow.int64())]),
            [{"raw": CANARY, "n": 1}, None],
        ),
        (pyarrow.list_(pyarrow.struct([("raw", pyarrow.string())])), [[{"raw": CANARY}], []]),
        (pyarrow.binary(), [CANARY.encode(), b"\x89PNG\r\n", b"", None]),
        (pyarrow.map_(pyarrow.string(), pyarrow.string()), [[("a", CANARY)], None]),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), [f"a {CANARY}", None]),
        (pyarrow.float64(), [1.5, float("nan"), None, float("inf")]),
        (pyarrow.int64(), [1, None, -(2**63)]),
        (pyarrow.bool_(), [True, None]),
        (pyarrow.date32(), [datetime.date(1947, 3, 12), None]),
        (
            pyarrow.timestamp("ns"),
            [datetime.datetime(1947, 3, 12), None, pyarrow.scalar(1, pyarrow.timestamp("ns"))],
        ),
        (pyarrow.decimal128(5, 2), [None]),
        (pyarrow.null(), [None]),
    ]
)


@st.composite
def parquet(draw: st.DrawFn) -> Sheet:
    """A Parquet file whose text column is of any type; images by name, as bytes, or as a struct."""
    kind, values = draw(_COLUMNS)
    captions = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    names = [image_name(n) for n in range(len(captions))]
    form = draw(st.sampled_from(["name", "name", "name", "struct", "bytes"]))
    images: Any = names
    if form == "struct":
        images = [{"bytes": None if draw(st.booleans()) else b"x", "path": name} for name in names]
    elif form == "bytes":
        images = [name.encode() for name in names]
    columns = {"image": pyarrow.array(images), "text": pyarrow.array(captions, kind)}
    other, further = draw(_COLUMNS)
    if draw(st.booleans()):
        columns[draw(st.sampled_from(["label", "split", "group", "x", ""]))] = pyarrow.array(
            [further[0]] * len(names), other
        )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    known = dict(zip(names, captions, strict=True)) if form == "name" else {}
    return Sheet("metadata.parquet", stream.getvalue(), known, "")


_RAW_CELLS = _DELIMITED_CELLS | st.sampled_from(
    [f'"{CANARY}', f'""{CANARY}', f'{CANARY}"', '"', '""', '"""', "'", "\\"]
)


@st.composite
def unquoted(draw: st.DrawFn) -> Sheet:
    """Rows joined as they are, as many programs write CSV and TSV."""
    separator = draw(st.sampled_from([",", "\t", "\t", ";"]))
    cells = [
        cell.replace("\n", " ").replace("\r", " ").replace(separator, " ")
        for cell in draw(st.lists(_RAW_CELLS, min_size=2, max_size=7))
    ]
    front = draw(st.booleans())
    header = ["file_name", "text"] if front else ["text", "file_name"]
    rows = [[image_name(n), cell] if front else [cell, image_name(n)] for n, cell in enumerate(cells)]
    text = "\n".join(separator.join(row) for row in [header, *rows]) + "\n"
    name = "metadata.tsv" if separator == "\t" else "metadata.csv"
    return Sheet(
        name, text.encode("utf-8", "replace"), {image_name(n): None for n in range(len(cells))}, "utf-8"
    )


INSERTED = image_name(900)
_PIECES = documents.PIECES | st.sampled_from(
    [
        '"',
        '""',
        ",",
        "\t",
        ";",
        "\n",
        "\r",
        '","',
        '"\n',
        "\\",
        "{",
        "}",
        "[",
        "null",
        "1e999",
        "NaN",
        ":",
        "\x1a",
        "é",
        INSERTED,
    ]
)


@st.composite
def broken(draw: st.DrawFn) -> Sheet:
    """A correct text table with pieces put in or cut out, or a Parquet file with other bytes."""
    sheet = draw(delimited() | json_lines() | unquoted() | parquet())
    if sheet.encoding:
        text = sheet.data.decode(sheet.encoding, "replace")
        return Sheet(sheet.name, draw(documents.edited(text, _PIECES)), {}, sheet.encoding)
    return Sheet(sheet.name, draw(edited_bytes(sheet.data)), {}, "")


@st.composite
def edited_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some changed, cut out, doubled or cut off."""
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.sampled_from([1, 1, 1, 2, 4, 16, 200]))
        new = draw(
            st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80\x00", b"\xff\xff\xff\xff", b"\0\0\0\0", b""])
            | st.binary(max_size=8)
        )
        match draw(st.integers(0, 4)):
            case 0 | 1:
                data = data[:start] + new + data[start + len(new) :]
            case 2:
                data = data[:start] + data[start + size :]
            case 3:
                data = data[:start] + data[start : start + size] * 2 + data[start + size :]
            case _:
                data = data[:start]
    return data
