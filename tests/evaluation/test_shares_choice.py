"""The shares of an ensemble: chosen by the validation split, the base alone where nothing is better."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.shares_choice import choose_shares

LABELS = np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])
# The base is right about the first and the third image, the member about the other two, by more than it is wrong.
BASE = np.array([[3.0, 0], [0, 1], [0, 3], [1, 0]])
MEMBER = np.array([[0.0, 1], [3, 0], [1, 0], [0, 3]])
TRIED = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_both_together_are_right_about_all(multi_label: bool) -> None:
    choice = choose_shares(TRIED, lambda u: u[0] * BASE + u[1] * MEMBER, LABELS, multi_label)
    assert (choice.shares, choice.chosen, choice.tried) == ((0.5, 0.5), 1.0, 3)
    assert choice.alone < 1
    assert choice.facts()["shares"].startswith("0.50, 0.50, the best of 3 by macro")


def test_the_base_alone_where_no_member_helps() -> None:
    """Negative control: a member that is the base, and one that is wrong."""
    same = choose_shares(TRIED, lambda u: (u[0] + u[1]) * BASE, LABELS, False)
    assert same.shares == (1.0, 0.0)
    wrong = choose_shares(TRIED, lambda u: u[0] * LABELS + u[1] * (1 - LABELS), LABELS, False)
    assert wrong.shares == (1.0, 0.0)
    assert wrong.alone == wrong.chosen == 1.0
