"""Further texts that a pair already has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domainclip.data.text.related_texts import (
    caption_language,
    column_texts,
    distinct_from_captions,
    draw_texts,
    other_captions,
)
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
    assert column_texts(shown("x", column=cell), "column") == texts
    assert column_texts(shown("x"), "column") == []


def test_the_language_of_what_is_shown() -> None:
    pair = shown("A dog. It runs.", "Ein Hund", languages=["en", "de"], rewrites=[["Un chien", "fr"]])
    assert caption_language(pair) == "en"
    assert caption_language(replace(pair, text="It runs.")) == "en"  # a sentence of it
    assert caption_language(replace(pair, text="Un chien")) == "fr"
    assert caption_language(replace(pair, text="a photo of a dog")) == ""


def test_other_captions() -> None:
    pair = shown("A dog. It runs.", "Ein Hund", "A hound", languages=["en", "de", "en"])
    assert other_captions(pair) == ["Ein Hund", "A hound"]
    assert other_captions(pair, "same_language") == ["A hound"]
    assert other_captions(pair, "other_language") == ["Ein Hund"]
    assert other_captions(replace(pair, text="It runs.")) == ["Ein Hund", "A hound"]


def test_drawn_by_the_seed_alone() -> None:
    texts = [f"text {n}" for n in range(6)]
    pair = shown("x", seed=5)
    assert draw_texts(texts, pair, 3) == draw_texts(reversed(texts), pair, 3)
    assert len({tuple(draw_texts(texts, replace(pair, seed=s), 2)) for s in range(60)}) > 20
    assert draw_texts(["a", "a", ""], pair, 3) == ["a"]


def test_what_is_true_is_no_negative() -> None:
    pair = shown("A dog", "a hound", rewrites=[["the dog", "en"]])
    made = ["a  DOG", "A Hound", "The dog", "", "a cat", "A CAT", "a cow", "a pig"]
    assert distinct_from_captions(made, pair, 2) == ["a cat", "a cow"]
