"""The order of a run, as pure functions of (seed, epoch, position).

Nothing here remembers anything, so a resumed run, any number of workers and any number of processes see
the same items in the same order, with the same captions.
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
    straddle epochs, so none is ever short and nothing is dropped. With `strata` (n,) a batch is of one
    stratum, as far as it reaches.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    if strata is None:
        return [(p // n, int(_permutation(p // n, n, seed)[p % n])) for p in places]
    # Once an epoch, not once a pair: to find what is kept, all strata are compared.
    told = strata.astype("<i8").tobytes()
    lines = {e: _stratified(e, batch_size, seed, told) for e in range(places[0] // n, places[-1] // n + 1)}
    return [(p // n, int(lines[p // n][p % n])) for p in places]


def rank_slice(batch: list[Position], rank: int, world: int) -> list[Position]:
    """The share of one process of a batch; see `shares`."""
    return process_share(batch, rank, world, "train.batch_size")


def process_share(whole: list[Item], rank: int, world: int, key: str) -> list[Item]:
    """The share of one process: consecutive, and as long as every other's, as gathering needs.

    Raises: RecipeError when the whole cannot be shared equally; `key` says what to change.
    """
    if len(whole) % world:
        raise RecipeError(
            f"{key}: {len(whole)} cannot be shared equally by {world} processes: take a multiple of {world}"
        )
    each = len(whole) // world
    return whole[rank * each : (rank + 1) * each]


@lru_cache(maxsize=4)  # a batch looks at two epochs at most, unless the corpus is smaller than it
def _permutation(epoch: int, n: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=stable(seed, epoch, "order")))
    return generator.permutation(n)


@lru_cache(maxsize=2)
def _stratified(epoch: int, batch_size: int, seed: int, told: bytes) -> np.ndarray:
    """The permutation of an epoch, stratum after stratum and then its whole batches in any order.

    What completes the last epoch's batch, and what is left over at the end, is one line from end to end.
    """
    strata = np.frombuffer(told, "<i8")
    n = len(strata)
    drawn = _permutation(epoch, n, seed)
    generator = np.random.Generator(np.random.Philox(key=stable(seed, epoch, "strata")))
    numbers = np.unique(strata)
    rank = np.empty(numbers.max() + 1, np.int64)
    rank[numbers] = generator.permutation(len(numbers))
    line = drawn[np.argsort(rank[strata[drawn]], kind="stable")]
    head = -epoch * n % batch_size  # items that complete the batch which the epoch before began
    whole = max(0, (n - head) // batch_size)
    blocks = line[head : head + whole * batch_size].reshape(whole, batch_size)
    blocks = blocks[generator.permutation(whole)]
    return np.concatenate([line[:head], blocks.ravel(), line[head + whole * batch_size :]])
