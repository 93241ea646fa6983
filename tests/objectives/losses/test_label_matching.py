"""Pairs that match each other, and pairs without any negative, against all comparisons one by one."""

from __future__ import annotations

import pytest
import torch

from domainclip.objectives.losses.label_matching import matching_pairs, without_negative


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kinds", [1, 2])
def test_pairs_without_a_negative_match_all_others(seed: int, kinds: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    numbers = [torch.randint(0, 2, (5,), generator=draw) for _ in range(kinds)]
    expected = matching_pairs(torch.arange(5), 5, numbers).all(dim=1)
    assert without_negative(numbers).tolist() == expected.tolist()


def test_a_pair_alone_has_no_negative() -> None:
    assert without_negative([torch.tensor([7])]).tolist() == [True]
    assert without_negative([torch.tensor([7, 7])]).tolist() == [True, True]
    assert without_negative([torch.tensor([7, 8])]).tolist() == [False, False]


def test_a_pair_may_match_some_by_group_and_the_rest_by_label() -> None:
    group, label = torch.tensor([1, 1, 2]), torch.tensor([5, 6, 5])
    assert without_negative([group, label]).tolist() == [True, False, False]
