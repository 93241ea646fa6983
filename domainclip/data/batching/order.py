"""The order of a run, as pure functions of (seed, epoch, position).

There is no state, so a resumed run, any number of workers and any number of processes see the same items in
the same order, with the same captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import floor
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
        return _sequence(places, n, seed)
    # One cache lookup an epoch, not one a pair: each lookup compares all strata.
    strata_bytes = strata.astype("<i8").tobytes()
    epochs = range(places[0] // n, places[-1] // n + 1)
    orders = {epoch: _stratified_order(epoch, batch_size, seed, strata_bytes) for epoch in epochs}
    return [(p // n, int(orders[p // n][p % n])) for p in places]


@dataclass(frozen=True)
class RepeatedRows:
    """The rows of a corpus that an epoch shows several times.

    Row i is shown r_i times in each epoch e, as if these were the epochs e r_i to e r_i + r_i − 1 of the row:
    each showing has its own caption and augmentation. Legend: n rows, m = Σ r_i places of an epoch.
    """

    times: np.ndarray  # (n,) r, 1 or more

    def __len__(self) -> int:
        return int(self.times.sum())

    @cached_property
    def rows(self) -> np.ndarray:
        """(m,) the row at each place."""
        return np.repeat(np.arange(len(self.times)), self.times)

    @cached_property
    def showings(self) -> np.ndarray:
        """(m,) the number of the showing of its row, from 0."""
        first: np.ndarray = np.cumsum(self.times) - self.times
        number: np.ndarray = np.arange(len(self)) - np.repeat(first, self.times)
        return number

    def batch_positions(
        self, step: int, batch_size: int, seed: int, strata: np.ndarray | None
    ) -> list[Position]:
        """As `batch_positions` over all places of an epoch, with the epoch of each row."""
        of_places = None if strata is None else strata[self.rows]
        return [
            (epoch * int(self.times[row]) + int(self.showings[place]), row)
            for epoch, place in batch_positions(step, batch_size, len(self), seed, of_places)
            for row in (int(self.rows[place]),)
        ]


def selected_positions(step: int, batch_size: int, rows: np.ndarray, begin: int, seed: int) -> list[Position]:
    """The (epoch, index) of every pair in a batch that is drawn from some rows (k,) since the step `begin`.

    The endless sequence over these rows begins at that step. Its epochs are numbered from `begin`, so that
    none has a number of an earlier choice: with at least a batch of rows, each takes a step or more.
    """
    places = range((step - begin) * batch_size, (step - begin + 1) * batch_size)
    own = stable(seed, begin, "selected")
    return [(begin + epoch, int(rows[index])) for epoch, index in _sequence(places, len(rows), own)]


def mixed_positions(
    step: int, batch_size: int, sizes: Sequence[int], seeds: Sequence[int], shares: Sequence[float]
) -> list[Position]:
    """The (epoch of its source, index) of every pair in the global batch of a step over several sources.

    Each source has an endless sequence of its own. Of the first P positions of the run, source k with share
    s_k fills ⌊s_k P⌋, in every batch as many as that number grows, and the first source fills the rest: a
    batch differs by one pair at most from the shares, and no source is counted short. Indices of a source
    begin where those of the source before it end.
    """
    begin, end = (_drawn(at * batch_size, shares) for at in (step, step + 1))
    positions, start = [], 0
    for size, seed, first, last in zip(sizes, seeds, begin, end, strict=True):
        positions += [(epoch, start + index) for epoch, index in _sequence(range(first, last), size, seed)]
        start += size
    return positions


def _drawn(places: int, shares: Sequence[float]) -> list[int]:
    """How many pairs of each source the first `places` positions of a run hold."""
    # As the decimal fractions that were written: 0.1 as a binary number would lose a pair now and then.
    others = [floor(Fraction(str(share)) * places) for share in shares]
    return [places - sum(others), *others]


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


def _sequence(places: range, n: int, seed: int) -> list[Position]:
    """The pairs at some places of the endless sequence over n items."""
    return [(p // n, int(_permutation(p // n, n, seed)[p % n])) for p in places]


# A batch spans two epochs at most of each source, unless a source is smaller than its share of the batch.
@lru_cache(maxsize=16)
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
