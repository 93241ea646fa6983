"""Scripts, words and what a tokeniser makes of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest

from domainclip.data.cards import Card
from domainclip.data.quarantine import ReadLog
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.text.languages import (
    LanguageProfile,
    count_words,
    profile_captions,
    script,
    to_nfc,
    tokenizer_warnings,
)
from tests.data.made_corpora import card


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("A dog runs.", "Latin", 3),
        ("Ein Hündchen läuft", "Latin", 3),
        ("Собака бежит", "Cyrillic", 2),
        ("Ένας σκύλος", "Greek", 2),
        ("كلب يجري", "Arabic", 2),
        ("כלב רץ", "Hebrew", 2),
        ("कुत्ता दौड़ रहा है", "Devanagari", 4),
        ("两只狗在跑。", "Han", 5),
        ("犬が走る", "Japanese", 4),
        ("カメラ", "Japanese", 3),
        ("개가 달린다", "Hangul", 2),
        ("สุนัขวิ่ง", "Thai", 5),
        ("ஒரு நாய்", "Tamil", 2),
        ("狗 is Chinese for dog", "Latin", 5),
        ("ＡＢＣ", "Latin", 1),
        ("🐶🏃🌿", "Emoji", 1),
        ("12.5 %", "None", 2),
        ("", "None", 0),
    ],
)
def test_fault_30_scripts_and_words(text: str, expected: str, count: int) -> None:
    """Fault 30: captions are counted by script."""
    assert script(text) == expected
    assert count_words(text) == count


def _bytes(texts: list[str]) -> Sequence[int]:
    return [len(text.encode()) + 2 for text in texts]  # a tokeniser that knows no word at all


def test_a_profile_by_hand() -> None:
    texts = ["ab cd", "ab cd", "é", "狗跑", ""]
    rows = profile_captions(texts, ["en", "en", "fr", "zh", "en"], _bytes, max_tokens=7)
    assert rows == [
        LanguageProfile("en", "Latin", 2, 4, "word", 10, 8, 0, False),
        LanguageProfile("en", "None", 1, 0, "word", 0, 0, 0, False),
        LanguageProfile("fr", "Latin", 1, 1, "word", 2, 1, 0, False),
        LanguageProfile("zh", "Han", 1, 2, "character", 6, 2, 1, False),
    ]
    assert (rows[0].tokens_per_word, rows[0].tokens_per_character, rows[0].share_truncated) == (2.5, 1.25, 0)
    assert (rows[3].tokens_per_word, rows[3].share_truncated) == (3, 1)
    assert profile_captions(["שלום"], ["he"], _bytes, 77)[0].right_to_left


def test_fault_30_a_script_in_bytes_names_a_better_base() -> None:
    """Fault 30: too many tokens a character are told of, with a base that knows the script."""
    rows = profile_captions(
        ["两只狗在跑", "dog"],
        ["zh", "en"],
        lambda texts: [2 + len(t.encode()) * (not t.isascii()) for t in texts],
        10,
    )
    assert tokenizer_warnings(rows) == [
        "the base splits Han script into bytes: 3.00 tokens a character (0.00 in Latin script), 1 of 1 captions "
        "truncated; take a base that knows the script: OFA-Sys/chinese-clip-vit-base-patch16 or "
        "google/siglip2-base-patch16-224"
    ]
    hindi = profile_captions(
        ["कुत्ता दौड़ रहा है"], ["hi"], lambda texts: [2 + len("".join(t.split())) for t in texts], 77
    )
    assert tokenizer_warnings(hindi) == [
        "the base splits Devanagari script into bytes: 1.00 tokens a character, 0 of 1 captions "
        "truncated; take a base that knows the script: google/siglip2-base-patch16-224, or a vision-text dual "
        "encoder with an XLM-RoBERTa text tower"
    ]


def test_a_base_that_knows_the_script_is_not_doubted() -> None:
    # One token a character is what a tokeniser made for Chinese takes; a quarter, one made for English.
    assert (
        tokenizer_warnings(
            profile_captions(["两只狗在跑"], ["zh"], lambda texts: [2 + len(t) for t in texts], 77)
        )
        == []
    )
    assert (
        tokenizer_warnings(
            profile_captions(["a dog runs fast"], ["en"], lambda texts: [2 + len(t) // 4 for t in texts], 77)
        )
        == []
    )
    assert tokenizer_warnings(profile_captions(["🐶🏃", "12"], ["", ""], _bytes, 77)) == []


def test_fault_30_composed_form_at_the_door() -> None:
    """Fault 30: captions and class names in NFD become NFC, are counted, and meet those that were NFC."""
    apart = unicodedata.normalize("NFD", "Œuvre déposée")
    assert to_nfc(apart) == "Œuvre déposée" != apart
    assert to_nfc("plain") == "plain"
    told: Card = card(columns={"texts": ["t"], "labels": "l"}, templates=["une {}"])
    rows = [
        SourceRow(
            {"t": unicodedata.normalize(form, "Café"), "l": unicodedata.normalize(form, "été")},
            f"row {n}",
            {"path": f"{n}", "bytes": None},
            f"{n}",
            "train",
        )
        for n, form in enumerate(("NFC", "NFD"))
    ]
    log = ReadLog()
    train = standardise(rows, told.columns, told, log)["train"]
    assert train["texts"][:] == [["Café"], ["Café"]]
    assert train["labels"][:] == [["été"], ["été"]]
    assert log.notes == ["2 captions and class names were not in composed form (NFC), and are now"]
