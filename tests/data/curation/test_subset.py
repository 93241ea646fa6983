"""The subset whose mean outer product follows that of all: by hand, against brute force, and chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from domainclip.data.curation.subset import Subset, kernel_herding
from tests.data.curation.curation_inputs import TableEncoder, items, unit


def _distance(image: np.ndarray, text: np.ndarray, rows: list[int]) -> float:
    return float(np.linalg.norm(image[rows].T @ text[rows] / len(rows) - image.T @ text / len(image)))


def test_by_hand() -> None:
    # Three items say (e1, e1), one says (e2, e2): the mean is diag(3/4, 1/4). One item of the first kind lies
    # at √(1/16 + 1/16), the other at √(9/16 + 9/16); two of the first and then the other follow.
    e = np.eye(2)
    rows = unit(e[[1, 0, 0, 0]])
    chosen = kernel_herding(rows, rows, 4)
    assert sorted(chosen) == [0, 1, 2, 3]
    assert 0 not in chosen[:1]
    assert chosen.index(0) in (1, 2)  # (1, 1)/2 and (2, 0)/2 are equally far from (3/4, 1/4)
    assert _distance(rows, rows, chosen[:1]) == pytest.approx(np.sqrt(2) / 4)


def test_each_step_is_the_best_one() -> None:
    """The score in closed form picks what trying each row out picks."""
    draw = np.random.default_rng(0)
    image, text = unit(draw.normal(size=(12, 5))), unit(draw.normal(size=(12, 5)))
    chosen = kernel_herding(image, text, 12)
    for step in range(12):
        tried = [row for row in range(12) if row not in chosen[:step]]
        best = min(tried, key=lambda row: _distance(image, text, [*chosen[:step], row]))
        assert chosen[step] == best
    # The greedy comes near the best of all subsets of four, and far below what chance gives.
    every = [_distance(image, text, list(rows)) for rows in combinations(range(12), 4)]
    assert _distance(image, text, chosen[:4]) < np.quantile(every, 0.05)


def test_pairs_count_and_not_images_alone() -> None:
    """Control: with the texts shuffled the choice is another, though the images are the same."""
    draw = np.random.default_rng(1)
    image, text = unit(draw.normal(size=(40, 6))), unit(draw.normal(size=(40, 6)))
    assert kernel_herding(image, text, 10) != kernel_herding(image, text[::-1], 10)


def test_the_share_is_kept_in_each_label() -> None:
    draw = np.random.default_rng(2)
    labels = [["a"]] * 16 + [["b"]] * 4 + [["a", "b"]]
    before = items([[f"t{i}"] for i in range(21)], labels)
    base = TableEncoder(draw.normal(size=(21, 4)), {f"t{i}": draw.normal(size=4) for i in range(21)})
    after = Subset(fraction=0.25)(before, base)
    assert [row for row in after["labels"][:] if row == ["a"]] == [["a"]] * 4
    assert [row for row in after["labels"][:] if row != ["a"]] == [["b"], ["a", "b"]]
    assert after["id"][:] == sorted(after["id"][:], key=int)
    assert len(Subset(fraction=0.25, by_label=False)(before, base)) == 5
    assert Subset(fraction=1.0)(before, base)["id"][:] == before["id"][:]
