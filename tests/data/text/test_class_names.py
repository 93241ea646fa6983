"""Names of classes: equal but for their spelling, and kinds that say nothing."""

from __future__ import annotations

import pytest

from domainclip.data.text.class_names import alike, fold, kind, quoted


@pytest.mark.parametrize(
    "spellings",
    [
        ["Benign", "benign", "BENIGN", " benign "],
        ["chest x-ray", "chest_x_ray", "Chest X Ray", "chestXray", "chest  x\u2010ray"],
        ["caf\u00e9", "cafe\u0301", "CAF\u00c9"],
        ["Stra\u00dfe", "strasse", "STRASSE"],
        ["\uff21\uff22", "ab"],  # full width
        ["No_Finding", "No Finding", "no-finding"],
    ],
)
def test_one_name_in_several_spellings(spellings: list[str]) -> None:
    assert len({fold(name) for name in spellings}) == 1
    assert alike([*spellings, "another"]) == [sorted(spellings)]


@pytest.mark.parametrize(
    "names",
    [
        ["1", "-1"],
        ["1-2", "12", "1.2"],
        ["C", "C++", "C#"],
        ["cat", "cats"],
        ["grade 1", "grade 2"],
        ["resume", "r\u00e9sum\u00e9"],
        ["_", "-"],
    ],
)
def test_other_names_are_not_alike(names: list[str]) -> None:
    assert alike(names) == []


def test_kinds_of_names_that_say_nothing() -> None:
    for number in ("0", "17", "-1", "2.0", "3,5", " 4 "):
        assert kind(number) == "number"
    for folder in ("images", "Train", "JPEGImages", "data_set", "raw", "all"):
        assert kind(folder) == "wrapper"
    for number in ("class_0", "Label 12", "cls-3", "id7"):
        assert kind(number) == "number"
    for missing in ("nan", "None", "N/A", "<NA>", "-"):
        assert kind(missing) == "missing"
    assert kind("n02084071") == "wordnet"
    for name in ("cat", "n0208", "grade 1", "1st", "image quality", "x2", "", "type 2", "nanna", "ideal"):
        assert kind(name) is None


def test_quoted_names() -> None:
    assert quoted("ab") == '"a", "b"'
    assert quoted("abcdefg") == '"a", "b", "c", "d", "e" and 2 more'
