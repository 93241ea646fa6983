from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from domainclip.data.cards import Splits
from domainclip.data.splits import describe_leak, is_split, parse_split, split_by_source, split_of
from domainclip.errors import DataError


def test_shares_are_near_what_was_asked() -> None:
    found = Counter(split_of(f"patient {i}", Splits()) for i in range(5000))
    # Standard deviations are 28 and 21.
    assert abs(found["train"] - 4000) < 120
    assert abs(found["validation"] - 500) < 90


def test_a_split_is_stable() -> None:
    names = [split_of(name, Splits()) for name in ("a", "b", "c", "d", "e", "f", "g", "h")]
    # Written down once: if this changes, every published split changes.
    assert names == ["train", "train", "train", "train", "train", "test", "train", "train"]
    assert names != [split_of(name, Splits(seed=1)) for name in ("a", "b", "c", "d", "e", "f", "g", "h")]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0, 0, 1), {"test"}), ((1, 0, 0), {"train"}), ((0.5, 0.5, 0), {"train", "validation"})],
)
def test_a_share_of_zero_stays_empty(shares: tuple[float, float, float], expected: set[str]) -> None:
    splits = Splits(train=shares[0], validation=shares[1], test=shares[2])
    assert {split_of(str(i), splits) for i in range(300)} == expected


def test_a_share_ends_before_its_bound() -> None:
    """A group whose place in 0 … 1 is exactly the bound of a share belongs to the next split."""
    place = int.from_bytes(hashlib.blake2b(b"0\0scan 1", digest_size=8).digest(), "big") / 2**64
    assert split_of("scan 1", Splits(train=place, validation=1 - place, test=0)) == "validation"
    assert split_of("scan 1", Splits(train=0, validation=place, test=1 - place)) == "test"


@pytest.mark.parametrize("word", ["val", "Valid", " validation ", "DEV"])
def test_words_for_validation(word: str) -> None:
    assert parse_split(word, "row 1") == "validation"
    assert is_split(word)


def test_an_unknown_word_for_a_split() -> None:
    with pytest.raises(DataError) as caught:
        parse_split("tset", "row 7, column split")
    assert str(caught.value) == (
        "row 7, column split: not the name of a split: use train, validation (val, valid, dev) or test"
    )
    assert not is_split("cats")


def test_leak_counts_groups_and_names_rows_but_never_the_group() -> None:
    groups = {"train": ["smith", "jones", "smith"], "validation": ["jones"], "test": ["smith", "brown"]}
    places = {"train": ["row 1", "row 4", "row 9"], "validation": ["row 2"], "test": ["row 3", "row 5"]}
    assert describe_leak(groups, places) == (
        "patient-level leak: 2 groups are in more than one split (1 in train and test, 1 in train and "
        "validation); one of them: row 1, row 9, row 3; mend the split column, or set "
        'corpus.columns.split="" to split by group'
    )


def test_one_leaking_group_is_singular_and_six_of_its_rows_are_named() -> None:
    groups = {"train": ["smith"] * 6, "validation": [], "test": ["smith"]}
    places = {"train": [f"row {i}" for i in range(1, 7)], "validation": [], "test": ["row 7"]}
    leak = describe_leak(groups, places)
    assert leak is not None
    assert leak.startswith("patient-level leak: 1 group is in more than one split (1 in train and test); ")
    assert "one of them: row 1, row 2, row 3, row 4, row 5, row 6; mend" in leak


def test_no_leak_without_shared_groups() -> None:
    places = {"train": ["row 1", "row 2"], "validation": [], "test": ["row 3"]}
    assert describe_leak({"train": ["a", "a"], "validation": [], "test": ["b"]}, places) is None


def test_a_truth_key_in_two_splits_is_a_leak_of_its_own() -> None:
    places = {"train": ["row 1"], "validation": [], "test": ["row 2"]}
    assert describe_leak({"train": ["s1"], "validation": [], "test": ["s1"]}, places, "truth") == (
        "leak: 1 truth key is in more than one split (1 in train and test); one of them: row 1, row 2; mend the "
        "split column, or name a column in corpus.columns.group whose groups hold each key whole"
    )


SOURCES = ["b", "a", "a", "c", "b", "", "c", "a"]
GROUPS = ["1", "2", "3", "4", "2", "5", "6", "7"]  # patient 2 was seen in a and in b


def test_one_source_is_held_out_with_all_of_its_patients() -> None:
    found = split_by_source(SOURCES, GROUPS, Splits(by="source", test_source="a", validation=0.0, train=0.9))
    assert found == ["train", "test", "test", "train", "test", "train", "train", "test"]
    # By its place in the alphabetical order, and named like a number.
    assert (
        split_by_source(SOURCES, GROUPS, Splits(by="source", test_source=1, validation=0, train=0.9)) == found
    )
    assert split_by_source(["7", "8"], ["x", "y"], Splits(by="source", test_source=8)) == ["train", "test"]


def test_the_other_sources_are_divided_in_the_ratio_of_their_shares() -> None:
    groups = [f"patient {i}" for i in range(4000)]
    sources = ["here" if i % 4 else "there" for i in range(4000)]
    found = Counter(split_by_source(sources, groups, Splits(by="source", test_source="there")))
    assert found["test"] == 1000
    assert abs(found["validation"] - 3000 / 9) < 80


@pytest.mark.parametrize(
    ("sources", "chosen", "message"),
    [
        (
            ["a", "a"],
            1,
            "corpus.splits.by: source needs two sources or more, and corpus.columns.source has 1",
        ),
        (
            ["a", "b"],
            3,
            "corpus.splits.test_source: not one of the 2 sources: give the name of one, or its place",
        ),
        (["a", "b"], "Doe", "corpus.splits.test_source: not one of the 2 sources"),
    ],
)
def test_a_source_that_does_not_exist_is_refused(sources: list[str], chosen: str | int, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        split_by_source(sources, ["1", "2"], Splits(by="source", test_source=chosen))
    assert "Doe" not in str(error.value)
