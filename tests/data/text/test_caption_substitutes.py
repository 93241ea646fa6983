"""Captions that stand for images: another item's, with the same labels, always the same one."""

from __future__ import annotations

from datasets import Dataset

from domainclip.data.text.caption_substitutes import substitute_captions

ITEMS = Dataset.from_dict(
    {
        "labels": [
            ["cat"],
            ["dog"],
            ["cat"],
            [],
            ["cat", "dog"],
            ["dog"],
            ["cat"],
            ["dog", "cat"],
            ["fox"],
            [],
        ],
        "texts": [["c0"], ["d1"], ["c2"], ["n3"], ["cd4"], ["", "d5"], ["c6"], ["cd7"], ["f8"], []],
    }
)


def test_another_item_with_exactly_the_same_labels() -> None:
    for seed in range(20):
        result = substitute_captions(ITEMS, seed)
        assert result[0] in ("c2", "c6")
        assert result[1] == "d5"
        assert result[2] in ("c0", "c6")
        assert result[4] == "cd7"
        assert result[5] == "d1"
        assert result[8] == "f8"  # the only one of its kind
        assert result[3] == "n3"  # without labels nothing says what is alike
        assert result[9] == ""


def test_a_pure_function_of_the_seed() -> None:
    assert substitute_captions(ITEMS, 3) == substitute_captions(ITEMS, 3)
    assert len({tuple(substitute_captions(ITEMS, seed)) for seed in range(20)}) > 3
