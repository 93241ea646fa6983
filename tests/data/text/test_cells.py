"""Cells that are no text: the forms that are read, and those that are refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from domainclip.data.text.cells import CellFault, caption_texts, cell_text, label_texts, template_text

NOT_ONE = "a list, not one value"
CUT = "a list, mapping or object that is cut or cannot be read, not text"
QUESTION = {"from": "human", "value": "<image>\nDescribe it."}
READ: list[tuple[Any, list[str]]] = [
    ("a cat", ["a cat"]),
    (["a cat", None, "", float("nan"), "a dog"], ["a cat", "a dog"]),
    (np.array(["a cat", "a dog"], dtype=object), ["a cat", "a dog"]),
    ('["a cat", "a \\ud83d\\ude00 dog"]', ["a cat", "a 😀 dog"]),
    ("['a cat', \"the dog's\"]", ["a cat", "the dog's"]),
    ("['a cat', None]", ["a cat"]),
    ("['a cat' 'a\\ndog'\n 'x']", ["a cat", "a\ndog", "x"]),
    ("('a cat', 'a dog')", ["a cat", "a dog"]),
    ("{'b', 'a'}", ["a", "b"]),
    ("[]", []),
    ({"raw": "a cat", "tokens": ["a", "cat"], "sentid": 3}, ["a cat"]),
    ([{"raw": "a cat", "tokens": ["a"]}, {"raw": "a dog"}], ["a cat", "a dog"]),
    ({"raw": ["a cat", "a dog"], "sentid": [1, 2]}, ["a cat", "a dog"]),
    ("{'raw': 'a cat', 'tokens': ['a', 'cat']}", ["a cat"]),
    ([{"caption": "a cat", "id": 1, "image_id": 2}], ["a cat"]),
    ({"raw": None}, []),
    ([QUESTION, {"from": "gpt", "value": "a cat"}], ["a cat"]),
    ([{"from": "gpt", "value": "a cat"}], ["a cat"]),
    (
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
        ],
        ["a cat"],
    ),
    (b"caf\xc3\xa9", ["café"]),
    ("b'caf\\xc3\\xa9'", ["café"]),
    (None, []),
    ("<NA>", []),
    # Titles in brackets and quotes are texts.
    ("[Untitled]", ["[Untitled]"]),
    ("[1890]", ["[1890]"]),
    ("(Paris)", ["(Paris)"]),
    ("('Untitled')", ["('Untitled')"]),
    ('["Untitled" (Study)]', ['["Untitled" (Study)]']),
    ('"Untitled"', ['"Untitled"']),
    ("{untitled}", ["{untitled}"]),
    ("b'x' is bytes", ["b'x' is bytes"]),
    ("[" * 50_000, ["[" * 50_000]),
]
REFUSED: list[tuple[Any, str]] = [
    ({"x": "a cat"}, "a mapping, not text"),
    ({"raw": "a", "caption": "b"}, "a mapping, not text"),
    ("{'en': 'a cat'}", "a mapping, not text"),
    ([["a", "cat"], ["a", "dog"]], "a list, not text"),
    ("[['a', 'cat']]", "a list, not text"),
    ("[0.1, 0.2]", "a number, not text"),
    ("[1 2 3]", "a number, not text"),
    (3, "a number, not text"),
    (True, "a number, not text"),
    (Decimal(3), "a number, not text"),
    (date(2020, 1, 2), "a date or time, not text"),
    (["a cat", 3], "a number, not text"),
    (b"\x89PNG\r\n\x1a\n\0", "bytes that are not UTF-8 text"),
    (b"\xff\xd8\xff", "bytes that are not UTF-8 text"),
    ("['a cat', 'a do", CUT),
    ("['a cat', nan]", CUT),
    ("{'raw': 'a cat', 'tok", CUT),
    ("array(['a cat'], dtype=object)", CUT),
    ("<PIL.PngImagePlugin.PngImageFile image mode=RGB size=1x1 at 0x7F00>", CUT),
    ([QUESTION], "a conversation with 0 answers, not a caption"),
    ([{"from": "gpt", "value": "a"}] * 2, "a conversation with 2 answers, not a caption"),
    ([{"from": "Dr Doe", "value": "a"}], "a conversation of unknown form, not text"),
    ("iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAA", "an image in base64, not text"),
    ("data:image/png;base64,iVBORw0KGgo=", "an image in base64, not text"),
    (object(), "a value of type object, not text"),
]


@pytest.mark.parametrize(("cell", "texts"), READ)
def test_captions_of_known_forms(cell: Any, texts: list[str]) -> None:
    assert caption_texts(cell) == texts


@pytest.mark.parametrize(("cell", "fault"), REFUSED)
def test_captions_of_other_forms_are_refused_and_never_quoted(cell: Any, fault: str) -> None:
    with pytest.raises(CellFault) as caught:
        caption_texts(cell)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("cat", ["cat"]),
        (["cat", "dog"], ["cat", "dog"]),
        ("['cat', 'dog']", ["cat", "dog"]),
        ('["cat"]', ["cat"]),
        ("[0, 3]", ["0", "3"]),
        ([0, 3], ["0", "3"]),
        (3, ["3"]),
        (3.0, ["3"]),
        (b"cat", ["cat"]),
        ("None", ["None"]),
        (None, [""]),
        ([None, "cat"], ["", "cat"]),
    ],
)
def test_class_names_of_known_forms(cell: Any, labels: list[str]) -> None:
    assert label_texts(cell) == labels


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ({"name": "cat"}, "a mapping, not a class name"),
        ("{'name': 'cat'}", "a mapping, not a class name"),
        ([{"name": "cat"}], "a mapping, not one value"),
        ([["cat"]], NOT_ONE),
        ([0, 1, 0], "a list of numbers, not class names"),
        ("[0 1 0 1]", "a list of numbers, not class names"),
        ([0.5, 0.1], "a list of numbers, not class names"),
        ([float("inf"), 1.0], "a list of numbers, not class names"),
        ("['cat', 'do", CUT),
        (b"\xff\xfe\x00", "bytes that are not UTF-8 text"),
    ],
)
def test_class_names_of_other_forms_are_refused(cell: Any, fault: str) -> None:
    with pytest.raises(CellFault) as caught:
        label_texts(cell)
    assert str(caught.value) == fault


def test_columns_with_one_value() -> None:
    assert [cell_text(cell) for cell in (None, float("nan"), "<NA>", "NaT", " x ", 3, 2.5, b"x")] == [
        *("", "", "", "", "x", "3", "2.5", "x")
    ]
    for cell, fault in ((["x"], NOT_ONE), ({"x": 1}, "a mapping, not one value")):
        with pytest.raises(CellFault, match=fault):
            cell_text(cell)


def test_columns_of_a_template() -> None:
    assert template_text(["oil", None, "canvas"]) == "oil, canvas"
    assert template_text("['oil', 'canvas']") == "oil, canvas"
    assert template_text(1890) == "1890"
    with pytest.raises(CellFault):
        template_text({"x": 1})
