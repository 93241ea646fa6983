"""Stable hashes and seeded draws: randomness as pure functions of their arguments."""

from __future__ import annotations

import hashlib

import numpy as np


def choose(seed: int, epoch: int, item: int | str, count: int, what: str = "caption") -> int:
    """Which of `count` captions, or views, an item shows in an epoch."""
    return stable(seed, epoch, item, what) % count


def draw(seed: int, epoch: int, item: int | str) -> np.random.Generator:
    """The source of an item's random numbers in an epoch, for augmentation."""
    return np.random.Generator(np.random.Philox(key=stable(seed, epoch, item, "augmentation")))


def stable(*parts: int | str) -> int:
    """A 64-bit number from a few parts: the same on every machine, unlike Python's own hash."""
    said = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")
