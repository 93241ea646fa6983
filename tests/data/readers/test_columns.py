from __future__ import annotations

import pytest

from domainclip.data.files.column_roles import Columns
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources.columns import named_columns, require_image_column, resolve_columns
from domainclip.errors import DataError
from tests.data.made_corpora import card


def test_guesses_are_made_from_the_names_and_noted() -> None:
    log = ReadLog()
    found = resolve_columns(card(), ["Filename", "Caption", "Patient_ID", "class", "other"], "t.csv", log)
    assert found == Columns(
        image="Filename", texts=["Caption"], group="Patient_ID", labels="class", split="", language=""
    )
    assert log.guesses == (
        "columns guessed from their names: image Filename, texts Caption, labels class, group Patient_ID "
        "(corpus.columns.image=COLUMN names another)"
    )


def test_what_the_card_says_is_not_guessed() -> None:
    log = ReadLog()
    said = {"image": "x", "texts": [], "labels": [], "group": "", "split": "", "language": ""}
    found = resolve_columns(
        card(columns=said), ["x", "image", "text", "label", "group", "split", "lang"], "t.csv", log
    )
    assert found == Columns.model_validate(said)
    assert log.notes == []


def test_a_template_without_text_says_all() -> None:
    found = resolve_columns(
        card(captions={"template": "{title} by {artist}"}), ["title", "artist", "text"], "t", ReadLog()
    )
    assert found.texts == []


def test_captions_that_a_template_leaves_out_are_told_of() -> None:
    log = ReadLog()
    said = card(columns={"texts": ["note"]}, captions={"template": "{title}"})
    resolve_columns(said, ["image", "title", "note"], "t", log)
    assert "corpus.columns.texts is not used: the card's captions.template does not name {text}" in log.notes


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"columns": {"image": "imag"}},
            't.csv: no column "imag" (corpus.columns.image): did you mean "image"? there are: image, caption.',
        ),
        (
            {"columns": {"texts": ["captoin"]}},
            't.csv: no column "captoin" (corpus.columns.texts): did you mean "caption"? there are: image, caption.',
        ),
        (
            {"columns": {"labels": ["zebra"]}},
            't.csv: no column "zebra" (corpus.columns.labels): known: caption, image.',
        ),
        (
            {"columns": {"meta": ["age"]}},
            't.csv: no column "age" (corpus.columns.meta): did you mean "image"? there are: image, caption.',
        ),
        (
            {"captions": {"template": "{text}, {stile}"}},
            't.csv: no column "stile" (corpus.captions.template): known: caption, image.',
        ),
    ],
)  # fmt: skip
def test_a_missing_column_names_its_key_and_the_nearest(keys: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(card(**keys), ["image", "caption"], "t.csv", ReadLog())
    assert str(caught.value) == message


def test_images_that_nothing_names() -> None:
    with pytest.raises(DataError) as caught:
        require_image_column(resolve_columns(card(), ["a", "b"], "t.csv", ReadLog()), ["a", "b"], "t.csv")
    assert str(caught.value) == (
        "t.csv: no column names the images: set corpus.columns.image; there are: a, b"
    )


CELLS = (
    "the first line has 3 cells, none of them a usual name of a column, and may be a row: add a line with the "
    "names of the columns"
)


@pytest.mark.parametrize(
    "cells",
    [
        ["P0017", "f", "left"],
        ["1947-03-02", "f", "left"],
        ["Zelda Quimbywort", "f", "left"],
        ["Quimbywort^Zelda", "f", "left"],
        ["scan", "f", "There is no effusion."],
        ["scan", "f", "7"],
    ],
)
def test_cells_of_a_table_without_a_header_are_not_quoted(cells: list[str]) -> None:
    """Fault 34: the first row of a person stands where the names of the columns should be."""
    with pytest.raises(DataError) as caught:
        resolve_columns(card(columns={"image": "picture"}), cells, "t.csv", ReadLog())
    assert str(caught.value) == f't.csv: no column "picture" (corpus.columns.image): {CELLS}'
    with pytest.raises(DataError) as caught:
        require_image_column(resolve_columns(card(), cells, "t.csv", ReadLog()), cells, "t.csv")
    assert str(caught.value) == (f"t.csv: no column names the images: set corpus.columns.image; {CELLS}")
    # Controls: with a usual name, or one that the card names, they are names of columns.
    for keys, name in (({}, "Caption"), ({"meta": ["age"]}, "age"), ({}, "caption;age")):
        with pytest.raises(DataError) as caught:
            resolve_columns(card(columns={"image": "picture", **keys}), [*cells, name], "t.csv", ReadLog())
        assert all(cell in str(caught.value) for cell in (*cells, name))


def test_every_key_that_names_a_column() -> None:
    keys = {
        "columns": {"id": "i", "labels": ["p", "q"], "languages": {"de": "de"}, "meta": ["m"]},
        "captions": {"template": "{text} {label} {z}"},
    }
    assert named_columns(card(**keys)) == {
        "i": "corpus.columns.id",
        "p": "corpus.columns.labels",
        "q": "corpus.columns.labels",
        "m": "corpus.columns.meta",
        "de": "corpus.columns.languages",
        "z": "corpus.captions.template",
    }


def test_a_wrong_column_of_a_wide_table_says_which_there_are() -> None:
    """Fault 29: a wrong column, with the nearest and all that exist, in their own order."""
    names = [f"c{number}" for number in range(45)]
    with pytest.raises(DataError) as caught:
        resolve_columns(card(columns={"image": "picture"}), names, "t.csv", ReadLog())
    assert str(caught.value) == (
        't.csv: no column "picture" (corpus.columns.image): there are: '
        + ", ".join(names[:40])
        + " and 5 more."
    )


def test_names_that_look_equal() -> None:
    with pytest.raises(DataError) as caught:
        resolve_columns(card(), ["image", "Caption", "caption"], "t.csv", ReadLog())
    assert str(caught.value) == (
        't.csv: columns "Caption" and "caption" differ in capitals only: name one in corpus.columns.texts'
    )
    assert resolve_columns(
        card(columns={"texts": "caption "}), ["image", "Caption", "caption"], "t.csv", ReadLog()
    ).texts == ["caption"]
    with pytest.raises(DataError) as caught:
        resolve_columns(card(columns={"texts": "caption"}), ["image", "\u0441aption"], "t.csv", ReadLog())
    assert str(caught.value) == (
        't.csv: no column "caption" (corpus.columns.texts): did you mean "\u0441aption"? '
        "(its letter 1 is CYRILLIC SMALL LETTER ES) there are: image, \u0441aption."
    )
