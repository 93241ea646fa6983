"""Candidates for duplicates among many images: neighbours in sorted orders of their permuted hash bits.

The bits of all hashes are permuted in the same random way and sorted. Hashes that differ in few bits often
agree in the first ones, and then stand close to each other; with several permutations, nearly always in one
of them [Charikar 2002, doi:10.1145/509907.509965]. A pair is decided by its own distance: pairs can be
missed, none is invented, and time grows with n log n, however alike the images are.

Legend: n images, w neighbours, k pairs.
"""

from __future__ import annotations

import numpy as np

_PERMUTATIONS = 32
_NEIGHBOURS = 16  # of each hash in an order
_BITS = 40  # of the 128 of both hashes, in a sorting key
_ROWS = 65_536  # images that are compared at once
_NONE = np.iinfo(np.int64).max


def near_hashes(hashes: np.ndarray, max_distance: int, count: int) -> np.ndarray:
    """(k, 3) rows i < j and orientation of pairs within `max_distance` bits: at most `count` of each image i.

    `hashes` are (n, o, 2) uint64 in o orientations: the first of i is compared with each of those of j.
    """
    n, orientations = hashes.shape[:2]
    best = np.full((n, count), _NONE, np.int64)  # packed, sorted, of each first image
    draw = np.random.default_rng(0)
    for _ in range(_PERMUTATIONS):
        bits = draw.permutation(128)[:_BITS].tolist()
        keys = [_permuted(hashes[:, orientation], bits) for orientation in range(orientations)]
        for orientation in range(orientations):
            order = np.argsort(keys[orientation], kind="stable")
            places = np.searchsorted(keys[orientation][order], keys[0])
            for start in range(0, n, _ROWS):
                rows = np.arange(start, min(start + _ROWS, n))
                near = _packed_neighbours(hashes, rows, places, order, orientation, max_distance)
                _merge(best, rows, near)
    first, place = np.nonzero(best != _NONE)
    packed = best[first, place] % 2**40
    return np.stack([first, packed // 8, packed % 8], 1)


def _permuted(hashes: np.ndarray, bits: list[int]) -> np.ndarray:
    """(n,) uint64: some bits of (n, 2) hashes, in this order."""
    keys = np.zeros(len(hashes), np.uint64)
    for bit in bits:
        keys = keys << np.uint64(1) | (hashes[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1))
    return keys


def _packed_neighbours(
    hashes: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    order: np.ndarray,
    orientation: int,
    max_distance: int,
) -> np.ndarray:
    """(r, w) int64: distance, row and orientation of the neighbours of some rows, in one number each."""
    around = np.arange(_NEIGHBOURS) - _NEIGHBOURS // 2
    others = order[np.clip(places[rows][:, None] + around, 0, len(order) - 1)]
    first, second = hashes[rows, 0], hashes[:, orientation]
    distance = np.bitwise_count(first[:, None, 0] ^ second[others, 0]).astype(np.int64)
    distance += np.bitwise_count(first[:, None, 1] ^ second[others, 1])
    near = (distance <= max_distance) & (others > rows[:, None])
    return np.where(near, distance << 40 | others << 3 | orientation, _NONE)


def _merge(best: np.ndarray, rows: np.ndarray, near: np.ndarray) -> None:
    """The closest of those so far and of further ones, each once."""
    some = np.flatnonzero((near != _NONE).any(axis=1))
    if not len(some):
        return
    both = np.sort(np.concatenate([best[rows[some]], near[some]], axis=1), axis=1)
    both[:, 1:][both[:, 1:] == both[:, :-1]] = _NONE
    best[rows[some]] = np.sort(both, axis=1)[:, : best.shape[1]]
