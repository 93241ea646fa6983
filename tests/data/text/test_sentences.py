"""Sentences in several scripts, and the full stops that end none."""

from __future__ import annotations

import time

import pytest

from domainclip.data.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Lee saw 2.5 cm. No mass.", ["Dr. Lee saw 2.5 cm.", "No mass."]),
        ("1. Clear lungs. 2. No effusion.", ["Clear lungs.", "No effusion."]),
        ("- one\n- two\n* three", ["one", "two", "three"]),
        ("no effusion. heart normal.", ["no effusion.", "heart normal."]),
        (
            "Approx. 3 cm, e.g. here. See Fig. 2 vs. No. 5.",
            ["Approx. 3 cm, e.g. here.", "See Fig. 2 vs. No. 5."],
        ),
        ("Normal? No. Here!", ["Normal?", "No.", "Here!"]),
        ('He said "yes." Then left.', ['He said "yes."', "Then left."]),
        ("J. Smith painted it. It is old.", ["J. Smith painted it.", "It is old."]),
        ("It measures 12. The heart is big.", ["It measures 12.", "The heart is big."]),
        ("Verlauf vom 3. Mai 2020. Li. Lunge frei.", ["Verlauf vom 3. Mai 2020.", "Li. Lunge frei."]),
        ("两只狗在跑。一个人在看！好", ["两只狗在跑。", "一个人在看！", "好"]),
        ("犬が走る。猫は寝る。", ["犬が走る。", "猫は寝る。"]),
        ("كلب يجري؟ نعم هو سريع.", ["كلب يجري؟", "نعم هو سريع."]),
        ("कुत्ता दौड़ रहा है। वह खुश है।", ["कुत्ता दौड़ रहा है।", "वह खुश है।"]),
        ("first line\nof one sentence\n\nand another", ["first line of one sentence", "and another"]),
        ("Text ohne Punkt", ["Text ohne Punkt"]),
        ("wait... what", ["wait... what"]),
        ("Wait... What", ["Wait...", "What"]),
        ("...", []),
        ("", []),
        ("🐶. 🐱.", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_nothing_but_bullets_and_spaces_is_lost() -> None:
    text = "The heart is big. Dr. A. Ng agrees (see Fig. 3). 4.5 cm, i.e. large! Really? Yes。对"
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("part", ["the lungs are clear. ", "see fig. 2 in no. 3 ", "A. b ", "." * 20, ". ) "])
def test_time_grows_with_the_length_and_not_with_its_square(part: str) -> None:
    def seconds(text: str) -> float:
        begin = time.process_time()
        split_sentences(text)
        return time.process_time() - begin

    # Ten times the length: ten times the time, and not a hundred times. The least of three is of this alone.
    short, long = (min(seconds(part * n + "x") for _ in range(3)) for n in (400, 4000))
    assert long < 30 * short + 0.02
