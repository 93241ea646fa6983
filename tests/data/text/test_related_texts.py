"""Further texts that a pair already has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domainclip.data.text.related_texts import captions, drawn, language, of_column, untrue
from tests.support.text_objectives import shown


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        (["a", " b ", ""], ["a", "b"]),
        ("one text, with a comma", ["one text, with a comma"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a", "it\'s"]', ["a", "it's"]),
        ("[not a list", ["[not a list"]),
        ("[a bracket]", ["[a bracket]"]),
        ("[__import__('os')]", ["[__import__('os')]"]),
        (None, []),
        ("", []),
    ],
)
def test_a_cell_as_texts(cell: object, texts: list[str]) -> None:
    assert of_column(shown("x", column=cell), "column") == texts
    assert of_column(shown("x"), "column") == []


def test_the_language_of_what_is_shown() -> None:
    pair = shown("A dog. It runs.", "Ein Hund", languages=["en", "de"], rewrites=[["Un chien", "fr"]])
    assert language(pair) == "en"
    assert language(replace(pair, text="It runs.")) == "en"  # a sentence of it
    assert language(replace(pair, text="Un chien")) == "fr"
    assert language(replace(pair, text="a photo of a dog")) == ""


def test_other_captions() -> None:
    pair = shown("A dog. It runs.", "Ein Hund", "A hound", languages=["en", "de", "en"])
    assert captions(pair) == ["Ein Hund", "A hound"]
    assert captions(pair, "same_language") == ["A hound"]
    assert captions(pair, "other_language") == ["Ein Hund"]
    assert captions(replace(pair, text="It runs.")) == ["Ein Hund", "A hound"]


def test_drawn_by_the_seed_alone() -> None:
    texts = [f"text {n}" for n in range(6)]
    pair = shown("x", seed=5)
    assert drawn(texts, pair, 3) == drawn(reversed(texts), pair, 3)
    assert len({tuple(drawn(texts, replace(pair, seed=s), 2)) for s in range(60)}) > 20
    assert drawn(["a", "a", ""], pair, 3) == ["a"]


def test_what_is_true_is_no_negative() -> None:
    pair = shown("A dog", "a hound", rewrites=[["the dog", "en"]])
    made = ["a  DOG", "A Hound", "The dog", "", "a cat", "A CAT", "a cow", "a pig"]
    assert untrue(made, pair, 2) == ["a cat", "a cow"]
