"""Micro-batches: nothing is encoded twice, and little padding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from domainclip.training import microbatches

CPU = torch.device("cpu")


class _Words:
    """Captions whose tokens are the lengths of their words."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        rows = [[len(word) for word in text.split()] for text in texts]
        width = max(map(len, rows))
        return {"input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows])}


TEXTS = ["aa b c", "ddd", "aa b c", "e ff", "ddd", "g h i j k"]
IMAGE = {"pixels": torch.arange(6).reshape(6, 1)}


@pytest.mark.parametrize("micro", [None, 1, 2, 4, 6])
def test_every_text_comes_back_in_its_place(micro: int | None) -> None:
    split = microbatches.split_rows(IMAGE, TEXTS, _Words(), 6, micro, CPU)
    rows = [
        [int(i) for i in row if i]
        for one in split.inputs
        for group in one["text"] or []
        for row in group["input_ids"]
    ]
    assert len(rows) == 4  # of six texts, four differ
    assert [rows[i] for i in split.row_of_text.tolist()] == [[len(w) for w in text.split()] for text in TEXTS]
    assert torch.cat([one["image"]["pixels"] for one in split.inputs]).flatten().tolist() == list(range(6))
    assert split.inputs[-1]["text"] is not None


def test_short_texts_stand_together() -> None:
    split = microbatches.split_rows(IMAGE, TEXTS, _Words(), 6, 3, CPU)
    assert [one["text"][0]["input_ids"].shape for one in split.inputs] == [(2, 2), (2, 5)]


def test_one_text_for_many_chunks_is_in_the_last() -> None:
    split = microbatches.split_rows(IMAGE, ["a"] * 6, _Words(), 6, 2, CPU)
    assert [one["text"] is None for one in split.inputs] == [True, True, False]
    assert split.row_of_text.tolist() == [0] * 6


def test_in_step_every_chunk_has_one_group_of_texts() -> None:
    """However many texts differ, and however long they are: all processes run the tower equally often."""
    long = "a b c d e f g h i j k l m n o p " * 8
    for texts in (["a"] * 6, ["a", long, "b", "a", long + "q", "c"], TEXTS):
        split = microbatches.split_rows(IMAGE, texts, _Words(), 6, 2, CPU, in_lockstep=True)
        assert [len(one["text"]) for one in split.inputs] == [1, 1, 1]
        rows = [[int(i) for i in row if i] for one in split.inputs for row in one["text"][0]["input_ids"]]
        assert [rows[i] for i in split.row_of_text.tolist()] == [
            [len(w) for w in text.split()] for text in texts
        ]
    # Negative control: left to itself, one process has two groups where another has one.
    free = microbatches.split_rows(IMAGE, ["a", long, "b", "a", long + "q", "c"], _Words(), 6, None, CPU)
    assert len(free.inputs[0]["text"]) == 2
    assert microbatches.split_rows(IMAGE, [], _Words(), 6, 2, CPU, in_lockstep=True).row_of_text is None


def test_without_texts_there_is_no_place() -> None:
    split = microbatches.split_rows(IMAGE, [], _Words(), 6, None, CPU)
    assert split.row_of_text is None
    assert split.inputs[0]["text"] is None


@pytest.mark.parametrize(
    ("lengths", "worth", "expected"),
    [
        ([], 4, []),
        ([5], 4, [(0, 1)]),
        ([5, 5, 5], 1, [(0, 3)]),
        ([2, 2, 9, 9], 14, [(0, 2), (2, 4)]),  # a cut saves 2 × 7 tokens
        ([2, 2, 9, 9], 15, [(0, 4)]),
        ([1, 1, 1, 4, 4, 4, 20], 6, [(0, 3), (3, 6), (6, 7)]),
    ],
)
def test_groups_of_like_length(lengths: list[int], worth: int, expected: list[tuple[int, int]]) -> None:
    assert [(one.start, one.stop) for one in microbatches.group_by_length(lengths, worth)] == expected
