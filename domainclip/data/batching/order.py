"""The order of a run, as pure functions of (seed, epoch, position).

There is no state, so a resumed run, any number of workers and any number of processes see the same items in
the same order, with the same captions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np

from domainclip.errors import RecipeError
from domainclip.seeding import stable

Position = tuple[int, int]  # epoch, index
Item = TypeVar("Item")


def batch_positions(
    step: int, batch_size: int, n: int, seed: int, strata: np.ndarray | None = None
) -> list[Position]:
    """The (epoch, index) of every pair in the global batch of a step.

    The stream is endless: position p lies in epoch p // n, at place p % n of its permutation. Batches
    straddle epochs, so no batch is short and no item is dropped. With `strata` (n,) a batch is of one
    stratum, as far as that stratum reaches.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    if strata is None:
        return [(p // n, int(_permutation(p // n, n, seed)[p % n])) for p in places]
    # One cache lookup an epoch, not one a pair: each lookup compares all strata.
    strata_bytes = strata.astype("<i8").tobytes()
    epochs = range(places[0] // n, places[-1] // n + 1)
    orders = {epoch: _stratified_order(epoch, batch_size, seed, strata_bytes) for epoch in epochs}
    return [(p // n, int(orders[p // n][p % n])) for p in places]


def rank_slice(batch: list[Position], rank: int, world: int) -> list[Position]:
    """The share of one process of a batch; see `process_share`."""
    return process_share(batch, rank, world, "train.batch_size")


def process_share(items: list[Item], rank: int, world: int, key: str) -> list[Item]:
    """The share of one process: consecutive, and as long as every other's, as gathering requires.

    Raises: RecipeError when the items cannot be shared equally; it names `key` as the key to change.
    """
    if len(items) % world:
        raise RecipeError(
            f"{key}: {len(items)} cannot be shared equally by {world} processes: take a multiple of {world}"
        )
    size = len(items) // world
    return items[rank * size : (rank + 1) * size]


@lru_cache(maxsize=4)  # a batch spans two epochs at most, unless the corpus is smaller than the batch
def _permutation(epoch: int, n: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=stable(seed, epoch, "order")))
    return generator.permutation(n)


@lru_cache(maxsize=2)
def _stratified_order(epoch: int, batch_size: int, seed: int, strata_bytes: bytes) -> np.ndarray:
    """The permutation of an epoch, stratum after stratum, and then its whole batches shuffled.

    Items that complete the previous epoch's last batch stay first; those left over at the end stay last.
    """
    strata = np.frombuffer(strata_bytes, "<i8")
    n = len(strata)
    permutation = _permutation(epoch, n, seed)
    generator = np.random.Generator(np.random.Philox(key=stable(seed, epoch, "strata")))
    numbers = np.unique(strata)
    rank = np.empty(numbers.max() + 1, np.int64)
    rank[numbers] = generator.permutation(len(numbers))
    order = permutation[np.argsort(rank[strata[permutation]], kind="stable")]
    head = -epoch * n % batch_size  # items that complete the previous epoch's last batch
    whole = max(0, (n - head) // batch_size)
    blocks = order[head : head + whole * batch_size].reshape(whole, batch_size)
    blocks = blocks[generator.permutation(whole)]
    return np.concatenate([order[:head], blocks.ravel(), order[head + whole * batch_size :]])
