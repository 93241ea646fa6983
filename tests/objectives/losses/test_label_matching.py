"""Pairs that match by labels, by equal texts and by a mask, by hand."""

from __future__ import annotations

import pytest
import torch

from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.label_matching import label_sets, matching_pairs, number_equal_texts


def test_equal_sets_of_labels_share_a_number_and_empty_ones_do_not() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [1, 0], [0, 0]], dtype=torch.bool)
    numbers = label_sets(labels).tolist()
    assert numbers[0] == numbers[3] >= 0
    assert numbers[2] not in (numbers[0], numbers[1], numbers[4])
    assert numbers[1] != numbers[4]  # two items without labels have nothing in common
    assert max(numbers[1], numbers[4]) < 0  # so they are the number of no set


@pytest.mark.parametrize("logits", [1, 8, 2**20])
def test_equal_texts_have_the_number_of_the_first(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines above 1 - 1e-4 are one text: 0.99995 is, 0.9998 is not."""
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    texts = torch.eye(4, dtype=torch.float64)
    for row, cosine in ((2, 0.99995), (3, 0.9998)):
        texts[row] *= (1 - cosine**2) ** 0.5
        texts[row, 0] = cosine
    texts = torch.cat([texts, texts[1:2]])
    assert number_equal_texts(texts).tolist() == [0, 1, 0, 3, 1]
    assert number_equal_texts(texts[:0]).tolist() == []


def test_a_row_matches_its_target_and_what_a_number_or_a_mask_adds() -> None:
    target = torch.tensor([1, 3])
    assert matching_pairs(target, 4, []).tolist() == [
        [False, True, False, False],
        [False, False, False, True],
    ]
    group, other = torch.tensor([5, 5, 6, 7]), torch.tensor([1, 2, 3, 3])
    assert matching_pairs(target, 4, [group, None]).tolist() == [
        [True, True, False, False],
        [False, False, False, True],
    ]
    assert matching_pairs(target, 4, [group, other]).tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]
    masked = matching_pairs(target, 4, [], lambda rows: rows[:, None] + torch.arange(4) == 3)
    assert masked.tolist() == [[False, True, True, False], [True, False, False, True]]
