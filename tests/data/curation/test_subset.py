"""The subset whose mean outer product follows that of all: by hand, against brute force, and chance."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from domainclip.data.curation import subset
from domainclip.data.curation.subset import Subset, block_herding, kernel_herding
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


def test_many_items_are_chosen_in_blocks_nearly_as_well() -> None:
    draw = np.random.default_rng(3)
    topics = draw.normal(size=(12, 16))[draw.integers(12, size=1200)]
    image, text = (unit(topics + draw.normal(size=(1200, 16))) for _ in range(2))
    exact = _distance(image, text, kernel_herding(image, text, 300))
    chosen = block_herding(image, text, 300, block=128)
    by_chance = [_distance(image, text, draw.permutation(1200)[:300].tolist()) for _ in range(20)]
    assert len(set(chosen)) == 300
    assert exact <= _distance(image, text, chosen) < 0.25 * min(by_chance) + 0.75 * exact
    # Control: blocks that each follow their own mean do not correct each other.
    assert block_herding(image, text, 300, block=1200) != chosen


def test_one_block_chooses_as_the_exact_greedy_does() -> None:
    """With all rows as the candidates of each step, in exact arithmetic both are one algorithm."""
    draw = np.random.default_rng(4)
    image, text = (unit(draw.normal(size=(60, 8))).astype(np.float64) for _ in range(2))
    assert block_herding(image, text, 20, block=60) == kernel_herding(image, text, 20)


def test_the_choice_among_many_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(subset, "EXACT_ROWS", 10)
    calls = []
    herding = block_herding
    monkeypatch.setattr(subset, "block_herding", lambda *given: calls.append(1) or herding(*given))
    draw = np.random.default_rng(5)
    before = items([[f"t{i}"] for i in range(21)], [["a"]] * 21)
    base = TableEncoder(draw.normal(size=(21, 4)), {f"t{i}": draw.normal(size=4) for i in range(21)})
    chosen = [Subset(fraction=share)(before, base)["id"][:] for share in (0.5, 0.5, 0.25)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(calls) == 2
