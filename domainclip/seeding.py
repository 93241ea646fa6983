"""Stable hashes and seeded draws: randomness as pure functions of their arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def choose(seed: int, epoch: int, item: int | str, count: int, purpose: str = "caption") -> int:
    """Return the index, below `count`, of the caption or view that an item shows in an epoch."""
    return stable(seed, epoch, item, purpose) % count


def draw(seed: int, epoch: int, item: int | str) -> np.random.Generator:
    """Return the generator of an item's random numbers in an epoch, for augmentation."""
    return np.random.Generator(np.random.Philox(key=stable(seed, epoch, item, "augmentation")))


def sample(ids: Sequence[str], count: int | None, purpose: str, seed: int | None = None) -> list[int]:
    """Return the positions of at most `count` ids, in random order; which ones depends on the ids alone.

    Samples for other purposes or seeds are independent; without a seed there is one sample for each purpose.
    """

    def rank(row: int) -> tuple[int, str]:
        parts = (purpose, ids[row]) if seed is None else (seed, ids[row], purpose)
        return stable(*parts), ids[row]

    return sorted(range(len(ids)), key=rank)[:count]


def stable(*parts: int | str) -> int:
    """Return a 64-bit number from the parts: equal on every machine, unlike Python's hash."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
