"""The order of a run, as pure functions of (seed, epoch, position).

Nothing here remembers anything, so a resumed run, any number of workers and any number of processes see
the same items in the same order, with the same captions.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TypeVar

import numpy as np

from domainclip.errors import RecipeError

Position = tuple[int, int]  # epoch, index
Item = TypeVar("Item")


def positions(step: int, batch_size: int, n: int, seed: int) -> list[Position]:
    """The (epoch, index) of every pair in the global batch of a step.

    The stream is endless: position p lies in epoch p // n, at place p % n of its permutation. Batches
    straddle epochs, so none is ever short and nothing is dropped.
    """
    start = step * batch_size
    return [(p // n, int(_permutation(p // n, n, seed)[p % n])) for p in range(start, start + batch_size)]


def rank_slice(batch: list[Position], rank: int, world: int) -> list[Position]:
    """The share of one process of a batch; see `shares`."""
    return shares(batch, rank, world, "train.batch_size")


def shares(whole: list[Item], rank: int, world: int, key: str) -> list[Item]:
    """The share of one process: consecutive, and as long as every other's, as gathering needs.

    Raises: RecipeError when the whole cannot be shared equally; `key` says what to change.
    """
    if len(whole) % world:
        raise RecipeError(
            f"{key}: {len(whole)} cannot be shared equally by {world} processes: take a multiple of {world}"
        )
    each = len(whole) // world
    return whole[rank * each : (rank + 1) * each]


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


@lru_cache(maxsize=4)  # a batch looks at two epochs at most, unless the corpus is smaller than it
def _permutation(epoch: int, n: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=stable(seed, epoch, "order")))
    return generator.permutation(n)
