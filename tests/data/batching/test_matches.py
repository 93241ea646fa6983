"""Which texts are right for which images: by hand, against the definition, in parts and of other processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainclip.data.batching.matches import Matches, MatchKeys, caption_numbers, number, why_no_negatives
from tests.support.matches import related, right_texts


def _random(pairs: int, seed: int) -> MatchKeys:
    draw = np.random.default_rng(seed)
    pools = [draw.integers(0, 12, draw.integers(1, 6)) for _ in range(pairs)]
    shown = [int(draw.integers(len(pool))) for pool in pools]
    return MatchKeys.of(draw.integers(0, 9, pairs).tolist(), shown, pools)


def test_a_caption_of_the_pool_is_right_whatever_is_shown_now() -> None:
    # Item 0 may show a or b and shows a; item 1 shows b; item 2 shows c.
    matches = related([0, 1, 2], [[1, 2], [2], [3]])
    rows = torch.arange(3)
    assert matches.right_texts(rows).tolist() == [
        [True, True, False],  # text b of pair 1 is right for image 0,
        [False, True, False],  # and text a of pair 0 is not for image 1
        [False, False, True],
    ]
    assert torch.equal(matches.right_images(rows), matches.right_texts(rows).T)
    assert torch.equal(matches.either(rows), matches.right_texts(rows) | matches.right_texts(rows).T)


def test_captions_of_a_group_are_right_for_all_its_images() -> None:
    matches = related([7, 7, 8], [[1], [2], [3]])
    assert matches.right_texts(torch.arange(3)).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_a_chain_does_not_tie_unlike_pairs_together() -> None:
    # Two patients share a common caption; the rare one of each is wrong for the other.
    matches = related([1, 1, 2, 2], [[9], [5], [9], [6]])
    right = matches.right_texts(torch.arange(4))
    assert right.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("pairs", [1, 2, 17, 40])
def test_every_block_is_the_definition(pairs: int) -> None:
    keys = _random(pairs, pairs)
    expected = right_texts(Matches.within(keys), pairs)
    matches = Matches.within(keys)
    for rows in torch.randperm(pairs, generator=torch.manual_seed(0)).split(7):
        assert torch.equal(matches.right_texts(rows), expected[rows])
        assert torch.equal(matches.right_images(rows), expected.T[rows])


def test_texts_of_another_process() -> None:
    keys = _random(30, 3)
    own, other = keys[:12], keys[12:]
    expected = right_texts(Matches.within(keys), 30)
    assert torch.equal(Matches(own, other).right_texts(torch.arange(12)), expected[:12, 12:])


def test_joined_batches_are_the_batch_of_all() -> None:
    keys = _random(20, 5)
    narrow = MatchKeys(keys.group[:3], keys.caption[:3], keys.pool[:3, :1])
    joined = MatchKeys.join([narrow, keys[3:]])
    assert joined.pool.shape == keys.pool.shape
    parts = [keys[:8], keys[8:]]
    whole = MatchKeys.join(parts)
    assert all(torch.equal(a, b) for a, b in zip(vars(whole).values(), vars(keys).values(), strict=True))


def test_numbers_ignore_capitals_and_spaces_and_differ_by_text() -> None:
    first, second, third = caption_numbers(["A star.", "a  STAR.", "A moon."]).tolist()
    assert first == second != third
    assert min(first, third) >= 0
    assert number("caption", "x") != number("group", "x")


def test_no_text_is_right_for_its_group_alone() -> None:
    empty = caption_numbers([""])
    keys = MatchKeys.of([1, 2, 2], [0, 0, 0], [empty, empty, empty])
    assert Matches.within(keys).right_texts(torch.arange(3)).int().tolist() == [
        [1, 0, 0],
        [0, 1, 1],
        [0, 1, 1],
    ]


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


def test_an_empty_caption_is_not_the_padding_of_a_pool() -> None:
    """Image 0 has two captions, image 1 has one and so a padded pool, and pair 2 shows an empty caption."""
    pools = [np.array([5, 6]), np.array([7]), caption_numbers([""])]
    matches = Matches.within(MatchKeys.of([0, 1, 2], [0, 0, 0], pools))
    assert torch.equal(matches.right_texts(torch.arange(3)), torch.eye(3, dtype=torch.bool))


def test_pairs_of_which_only_the_groups_are_known() -> None:
    keys = MatchKeys.of_groups(torch.tensor([4, 9, 4]))
    assert keys.pool.shape == (3, 0)
    right = Matches.of_groups(keys.group).right_texts(torch.arange(3))
    assert right.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
