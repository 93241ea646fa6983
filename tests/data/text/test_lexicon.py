"""The words of twenty-five languages: read whole, and sound: what is said of one language holds for all."""

from __future__ import annotations

from pathlib import Path

import pytest

import domainclip.data.text.lexicon as module
from domainclip.config import strict_yaml
from domainclip.data.text.lexicon import EMPTY, find_lexicon

TABLE = strict_yaml.load_yaml(
    Path(module.__file__).with_suffix(".yaml").read_text(encoding="utf-8"), "lexicon.yaml"
)


def test_there_are_many_languages() -> None:
    assert len(TABLE) >= 25
    assert {
        "en",
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "nl",
        "pl",
        "cs",
        "ru",
        "tr",
        "ar",
        "he",
        "hi",
        "zh",
        "ja",
        "ko",
    } <= set(TABLE)


@pytest.mark.parametrize("code", TABLE)
def test_each_language_is_sound(code: str) -> None:
    words = find_lexicon("", code)
    assert words.language == code
    assert words.sides
    assert words.presence
    assert "_" in words.bare_negation
    # Left and right are two words, neither of which is left out of a swap as a small word.
    assert all(side != other and other for side, other in words.sides.items())
    assert all(word != contrary for word, contrary in words.presence.items())
    assert all(word not in others and others for word, others in words.numbers.items())
    if words.spaced:
        assert len(words.function_words) >= 15
        assert words.conjunctions
        assert words.negations & words.presence.keys()
    # Case does not count where words are looked up, so none may stand there in capitals.
    listed = {*words.function_words, *words.conjunctions, *words.sides, *words.presence, *words.numbers}
    assert all(word == word.casefold() or word == word.lower() for word in listed)


def test_the_signs_of_the_table() -> None:
    english = find_lexicon("", "en")
    assert (english.sides["left"], english.sides["right-sided"]) == ("right", "left-sided")
    assert (english.presence["a"], english.presence["no"], english.presence["is"]) == ("no", "", "is not")
    assert {"no", "not", "without", "absent"} <= english.negations
    assert not {"a", "with", "is", "present"} & english.negations
    assert english.numbers["three"] == ("four", "two")
    assert (english.numbers["two"], english.numbers["twelve"]) == (("three",), ("eleven",))
    assert find_lexicon("", "ru").sides["левого"] == "правого"
    assert find_lexicon("", "cs").numbers["dvě"] == ("tři",)


@pytest.mark.parametrize(
    ("text", "language", "result"),
    [
        ("A dog on the grass", "", "en"),
        ("Ein kleines Mädchen klettert in ein Haus", "", "de"),
        ("Malá dívka si hraje na louce u domu", "", "cs"),
        ("Cardiomegaly", "", "en"),  # no small word: the language of most reports
        ("طفلة صغيرة على الدرج", "", "ar"),
        ("बच्चे पानी में खेल रहे हैं।", "", "hi"),
        ("玩水的孩子", "", "zh"),
        ("子供が水で遊ぶ", "", "ja"),
        ("ສອງໂຕ", "", ""),
        ("anything", "pt-BR", "pt"),
        ("anything", "zh_CN", "zh"),
        ("Mtoto anacheza", "sw", ""),
    ],
)
def test_which_language(text: str, language: str, result: str) -> None:
    assert find_lexicon(text, language).language == result


def test_a_language_without_a_list_has_nothing() -> None:
    assert find_lexicon("the left lung", "xx") is EMPTY
