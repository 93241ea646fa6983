"""Words of a text and what stands around them."""

from __future__ import annotations

import pytest

from domainclip.data.text.words import SpacedText, find_phrase, match_case, split_words


def test_punctuation_stays_where_it_is() -> None:
    said = SpacedText.of('A "black" dog, and (one) cat .')
    assert said.words == ("A", "black", "dog", "and", "one", "cat", "")
    assert said.replace_words({1: "cat", 5: "black"}) == 'A "cat" dog, and (one) black .'
    assert SpacedText.of("  two   spaces ").replace_words({}) == "two spaces"


@pytest.mark.parametrize(
    ("text", "by", "expected"),
    [
        ("Cardiomegaly with effusion.", {0: "effusion", 2: "Cardiomegaly"}, "Effusion with cardiomegaly."),
        ("Hund und Katze", {0: "Katze", 2: "Hund"}, "Katze und Hund"),  # nouns stay large
        ("MRI of brain", {0: "brain", 2: "MRI"}, "Brain of MRI"),
        ("No effusion.", {0: ""}, "Effusion."),
        ("There is no mass.", {2: ""}, "There is mass."),
        ("No, (pleural effusion).", {0: "", 1: "", 2: "edema"}, "(edema)."),
        ("Effusion (no).", {1: ""}, "Effusion)."),
        ("कुत्ता घास पर।", {0: "घास", 1: "कुत्ता"}, "घास कुत्ता पर।"),
    ],
)
def test_capitals_follow_the_place(text: str, by: dict[int, str], expected: str) -> None:
    assert SpacedText.of(text).replace_words(by) == expected


def test_words_that_say_much() -> None:
    little = frozenset({"the", "of"})
    assert SpacedText.of("The size of X is 12 mm in T2 images.").content_positions(little) == [1, 4, 6, 7, 9]
    assert SpacedText.of("word " * 60).content_positions(little) == list(range(40))
    assert SpacedText.of("").content_positions(little) == []


def test_find_and_cased() -> None:
    assert find_phrase(["a", "Pleural", "effusion", "or", "pleural", "EFFUSION"], "pleural  Effusion") == [
        1,
        4,
    ]
    assert find_phrase(["a"], "") == []
    assert (
        match_case("right", "Left"),
        match_case("right", "LEFT"),
        match_case("right", "left"),
        match_case("no", "A"),
    ) == (
        "Right",
        "RIGHT",
        "right",
        "No",
    )


def test_pieces_of_a_long_text() -> None:
    assert split_words("w " * 50)[0] == ["w"] * 40
    assert split_words("w " * 50, None)[0] == ["w"] * 50
    assert split_words("一张红色的猫", None) == (["一张", "红色", "的猫"], "")
