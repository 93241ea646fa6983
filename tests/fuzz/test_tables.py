"""Tables: a correct one loses no row and changes no caption, and a broken one is refused or read whole."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from domainclip.data.cards import Card
from tests.fuzz import corpora, tables
from tests.fuzz.corpora import NAME, Reading, plain_rows  # noqa: F401
from tests.fuzz.oracle import CANARY, Room

MakeRoom = Callable[[str], Room]
pytestmark = pytest.mark.usefixtures("plain_rows")


def _read(room: Room, sheet: tables.Sheet, options: dict[str, Any]) -> Reading | None:
    for old in Path().glob("metadata.*"):
        old.unlink()
    Path(sheet.name).write_bytes(sheet.data)
    # The names of columns stand in messages, so a value in the place of a name does too.
    secret = None if CANARY in sheet.header() else CANARY
    return corpora.observe(room, Card(options=options, max_unusable=0), ".", sheet, secret)


def _strings(value: Any) -> Iterator[str]:
    """Every text in a cell."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _plain(text: str) -> str:
    """A text in the form of captions: half a character, which no file can hold, is replaced and counted."""
    whole = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    return " ".join(unicodedata.normalize("NFC", whole).split())


def _check_captions(room: Room, reading: Reading, sheet: tables.Sheet) -> None:
    """A caption is one of the texts of its cell, never what Python prints of a value."""
    for item in reading.items:
        cell = sheet.captions.get(Path(str(item.image["path"])).name)
        if cell in tables.PLAIN_TEXTS and sheet.encoding.startswith("utf"):
            kept = _plain(cell) in map(_plain, item.texts)
            room.require(kept, "silent loss", "a caption is another one", sheet)
        if not isinstance(cell, (list, tuple, dict, bytes)):
            continue
        texts = {_plain(text) for text in _strings(cell)}
        whole = all(_plain(caption) in texts for caption in item.texts)
        room.require(whole, "silent loss", "a caption is no text of its cell", sheet)


def test_correct_tables(room: MakeRoom) -> None:
    here = room("tables, correct")

    @here.each(0.06, sheet=tables.delimited() | tables.json_lines() | tables.parquet())
    def _(sheet: tables.Sheet) -> None:
        encoding = sheet.encoding if sheet.encoding not in ("", "utf-8", "utf-8-sig") else None
        reading = _read(here, sheet, {"encoding": encoding} if encoding else {})
        if reading is not None:
            corpora.check_named(here, reading, set(NAME.findall(" ".join(sheet.captions))), sheet)
            _check_captions(here, reading, sheet)


def test_broken_tables(room: MakeRoom) -> None:
    here = room("tables, broken")

    @here.each(0.08, sheet=tables.unquoted() | tables.broken(), options=_OPTIONS)
    def _(sheet: tables.Sheet, options: dict[str, Any]) -> None:
        reading = _read(here, sheet, options)
        if reading is not None and sheet.encoding and not options.keys() & {"where", "separator", "encoding"}:
            text = sheet.data.decode("utf-8", "ignore")
            # A name that was put in may stand inside a caption.
            names = set(NAME.findall(text)) - {Path(tables.INSERTED).stem}
            corpora.check_named(here, reading, names, sheet, may_lack_names=True)


_OPTIONS = st.sampled_from(
    [
        *(
            {},
            {},
            {},
            {},
            {"separator": ","},
            {"separator": "\t"},
            {"label_separator": "|"},
            {"image_folder": "x"},
        ),
        *(
            {"encoding": "latin-1"},
            {"encoding": "utf-16"},
            {"encoding": "idna"},
            {"encoding": "hex"},
            {"encoding": "unicode_escape"},
        ),
        *(
            {"where": {"text": "a"}},
            {"texts_where": {"label": 1}},
            {"separator": ""},
            {"separator": "\n"},
            {"separator": '"'},
        ),
    ]
)
