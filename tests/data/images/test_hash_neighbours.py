"""Candidates from sorted orders are among those of all pairs, and nearly all of them."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.data.images import perceptual_hashes
from domainclip.data.images.hash_neighbours import near_hashes
from domainclip.data.images.perceptual_hashes import find_candidates

Pairs = set[tuple[int, ...]]


def _flipped(hashes: np.ndarray, bits: int, draw: np.random.Generator) -> np.ndarray:
    """(n, 2) hashes with so many other bits."""
    changed = hashes.copy()
    for row in changed:
        for bit in draw.choice(128, bits, replace=False).tolist():
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def _planted(n: int, bits: int) -> tuple[np.ndarray, Pairs]:
    """(n, 8, 2) random hashes; each tenth is that of an earlier image in another orientation."""
    draw = np.random.default_rng(bits)
    hashes = draw.integers(0, 2**64, (n, 8, 2), dtype=np.uint64)
    first, second = np.arange(n // 10), np.arange(n - n // 10, n)
    hashes[second, 5] = _flipped(hashes[first, 0], bits, draw)
    return hashes, {(int(i), int(j), 5) for i, j in zip(first, second, strict=True)}


def _pairs(found: np.ndarray) -> Pairs:
    return {tuple(row) for row in found.tolist()}


@pytest.mark.parametrize("bits", [0, 8, 16, 24])
def test_planted_copies_are_found_and_none_is_invented(bits: int) -> None:
    hashes, planted = _planted(1000, bits)
    found, exact = _pairs(near_hashes(hashes, 24, 16)), _pairs(find_candidates(hashes))
    assert found <= exact
    assert planted <= exact
    assert len(planted & found) >= 97


def test_with_25_bits_a_pair_is_no_candidate() -> None:
    hashes, planted = _planted(100, 25)
    assert not planted & _pairs(near_hashes(hashes, 24, 16))


def test_of_many_equal_images_each_has_the_closest_ones() -> None:
    """A uniform corpus, such as blank films: work and results grow with n and not with its square."""
    hashes = np.zeros((3000, 8, 2), np.uint64)
    hashes[7, 0, 0] = 1  # one bit from all others
    found = near_hashes(hashes, 24, 16)
    assert np.bincount(found[:, 0]).max() == 16
    assert (found[:, 0] < found[:, 1]).all()
    assert set(found[:, 2].tolist()) == set(range(8))


def test_only_many_images_are_compared_in_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, planted = _planted(50, 4)
    assert planted <= _pairs(find_candidates(hashes))
    monkeypatch.setattr(perceptual_hashes, "EXACT_IMAGES", 49)
    monkeypatch.setattr(perceptual_hashes, "_block_candidates", None)
    assert planted <= _pairs(find_candidates(hashes))
