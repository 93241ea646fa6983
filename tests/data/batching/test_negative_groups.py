from __future__ import annotations

import pytest

from domainclip.data.batching.negative_groups import loss_groups, why_no_negatives


def test_a_caption_that_groups_share_is_a_group_of_its_own() -> None:
    a, b, c = loss_groups([["A star."], ["a  STAR."], ["A moon."]], ["g1", "g2", "g3"])
    assert a == b
    assert a != c


def test_other_captions_count_as_their_items_group() -> None:
    a, b, c = loss_groups([["front view"], ["side view"], ["front views"]], ["p1", "p1", "p2"])
    assert a == b
    assert a != c


def test_one_number_for_each_caption_of_an_item() -> None:
    (first,), (second, third) = loss_groups([["x"], ["x", "y"]], ["p1", "p2"])
    assert first == second
    assert third != second


def test_a_chain_does_not_tie_unlike_pairs_together() -> None:
    # p1 has the common caption and a rare one; p2 likewise: the two rare ones stay negatives.
    texts = [["common"], ["rare one"], ["common"], ["rare two"]]
    (a,), (b,), (c,), (d,) = loss_groups(texts, ["p1", "p1", "p2", "p2"])
    assert a == c
    assert len({a, b, d}) == 3


def test_no_text_is_no_common_caption() -> None:
    assert loss_groups([[], []], ["p1", "p2"]) == [[0], [1]]


@pytest.mark.parametrize(
    ("texts", "groups", "reason"),
    [
        ([["a moon"]], ["p1"], "there is only one training pair"),
        ([["a"], ["b"], ["c"]], ["p1"] * 3, "all 3 training pairs are of one group"),
        ([["A film."], ["a  film."]], ["p1", "p2"], "all 2 training pairs have the same captions"),
        # Templates of a single class: each pair shows one of them, and all of them hold for every image.
        (
            [["a cat", "one cat"], ["one cat", "a cat"]],
            ["p1", "p2"],
            "all 2 training pairs have the same captions",
        ),
        ([["a"], ["a"], ["b"]], ["p1", "p2", "p3"], ""),
        ([["a"], ["b"]], ["p1", "p2"], ""),
    ],
)
def test_why_no_pair_is_a_negative(texts: list[list[str]], groups: list[str], reason: str) -> None:
    assert why_no_negatives(texts, groups) == reason


def test_labels_match_pairs_only_where_they_decide() -> None:
    texts, groups = [["a"], ["b"]], ["p1", "p2"]
    assert why_no_negatives(texts, groups, [["cat", "pet"], ["pet", "cat"]]) == (
        "all 2 training pairs have the same labels"
    )
    assert why_no_negatives(texts, groups, [["cat"], ["dog"]]) == ""
    assert why_no_negatives(texts, groups, [[], []]) == ""
