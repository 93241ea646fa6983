"""Merged updates by hand."""

from __future__ import annotations

import pytest
import torch

from domainclip.models.weight_merging import merge_updates

FIRST = {"a": torch.tensor([4.0, -1.0, 0.0]), "b": torch.tensor([[2.0]])}
SECOND = {"a": torch.tensor([-2.0, -3.0, 5.0]), "b": torch.tensor([[0.5]])}


def test_arithmetic_is_the_weighted_sum() -> None:
    merged = merge_updates([FIRST, SECOND], [0.5, 0.25], "arithmetic", 0.2)
    assert merged["a"].tolist() == [1.5, -1.25, 1.25]
    assert merged["b"].tolist() == [[1.125]]


def test_ties_trims_elects_a_sign_and_takes_the_mean_of_those_that_agree() -> None:
    """Half of four entries stay: 4 and 2 of the first; −3 and 5 of the second, so −2 and 0.5 go."""
    merged = merge_updates([FIRST, SECOND], [0.5, 0.5], "ties", 0.5)
    assert merged["a"].tolist() == [4.0, -3.0, 5.0]
    assert merged["b"].tolist() == [[2.0]]
    # All stay: 4 against −2 is positive, so −2 is left out; −1 and −3 agree: the mean is −2.
    merged = merge_updates([FIRST, SECOND], [0.5, 0.5], "ties", 1.0)
    assert merged["a"].tolist() == [4.0, -2.0, 5.0]
    assert merged["b"].tolist() == [[1.25]]
    # Weighted: 0.2 · 4 against 0.8 · −2 is negative; the mean is −2. Shares of 2 in all double it.
    merged = merge_updates([FIRST, SECOND], [0.4, 1.6], "ties", 1.0)
    assert merged["a"][0].item() == pytest.approx(-4.0)


@pytest.mark.parametrize("method", ["arithmetic", "ties"])
def test_one_update_with_the_share_one_is_unchanged(method: str) -> None:
    merged = merge_updates([FIRST], [1.0], method, 1.0)  # type: ignore[arg-type]
    assert all(torch.equal(merged[name], FIRST[name]) for name in FIRST)


def test_opposed_updates_leave_nothing() -> None:
    opposed = {name: -entry for name, entry in FIRST.items()}
    for method in ("arithmetic", "ties"):
        merged = merge_updates([FIRST, opposed], [0.5, 0.5], method, 1.0)  # type: ignore[arg-type]
        assert not any(entry.any() for entry in merged.values())
