"""The order of a stream, as a pure function of the seed and the position, whoever reads it.

A stream is read in `lanes`: each lane has its own place in the stream, and fills the same places of every
batch. In an epoch the shards are put in the order of (seed, epoch), laid end to end, and cut into one piece
a lane, so that every pair is in one piece and the pieces are equally long, to a pair. A lane shuffles its
piece window by window. Processes and workers share the lanes out, so that neither their number nor a resume
changes what a step sees; a window is all that is held in memory, and a shard that is behind is never opened.

Legend: n pairs of the stream, k position in a lane's endless line, t position in its piece of an epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from math import gcd
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip import seeding
from domainclip.data import pseudonyms
from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import ReadLog
from domainclip.data.rows import SourceRow, to_dataset, usable_items
from domainclip.errors import DataError, RecipeError

SAMPLE_SIZE = 1024  # training pairs that stand for a stream in the checks
_END = object()  # of rows
# (shard, first sample, log) -> its rows from there on; None in the place of one that cannot be used.
OpenShard = Callable[[int, int, ReadLog], Iterator[SourceRow | None]]


@dataclass(frozen=True)
class Stream:
    """Training pairs that are read again in every epoch, and never stored."""

    shard_sizes: tuple[int, ...]  # samples of each shard
    open_shard: OpenShard
    columns: Columns
    card: Card
    shard_names: tuple[str, ...]  # of the shards
    buffer: int = 2048  # pairs held back for shuffling, over all lanes
    lanes: int = 8
    label_separator: str | None = None
    secret: bytes | None = None  # ids leave as pseudonyms under it; None: as they are

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def to_items(self, rows: Iterable[SourceRow | None], log: ReadLog) -> Dataset:
        """Some rows in the standard columns; `log.locations` says which were usable."""
        # Its splits are those of its shards, and its ids their names: nothing that only the whole could tell.
        columns = self.columns.model_copy(update={"split": "", "id": ""})
        good = [replace(row, split="train") for row in rows if row is not None]
        found = usable_items(good, columns, self.card, log, self.label_separator)["train"]
        if self.secret is not None:
            found = [replace(item, id=pseudonyms.pseudonym(item.id, self.secret)) for item in found]
        log.locations = {item.id: item.location for item in found}
        return to_dataset(found)

    def rows(self, log: ReadLog) -> Iterator[dict[str, Any]]:
        """Every usable row once, in the order of the shards."""
        for shard in range(len(self.shard_sizes)):
            line = self.read_shard(shard, 0, log)
            while part := list(islice(line, SAMPLE_SIZE)):
                yield from self.to_items(part, log)

    def read_shard(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        """The rows of a shard from the `start`-th on: as many as were counted on, or else an error.

        Raises: DataError for a shard that holds more, or fewer; pairs would be lost, or shown twice.
        """
        wanted = self.shard_sizes[shard] - start
        if not wanted:  # an empty shard
            return
        rows = self.open_shard(shard, start, log)
        for given, row in enumerate(rows, start=1):
            # Looked at before the last row is handed on, for nobody asks for the one after it.
            if given == wanted and next(rows, _END) is not _END:
                break
            yield row
            if given == wanted:
                return
        found = sum(1 for _ in self.open_shard(shard, 0, ReadLog()))
        raise DataError(
            f"shard {self.shard_names[shard]}: holds {found} samples and not {self.shard_sizes[shard]}: mend "
            "or remove the sizes.json or manifest.json beside it; where there is none, it was changed: start "
            "again"
        )

    def fingerprint(self) -> str:
        """sha256 of what decides the order: shards, and how many samples each has."""
        said = [
            self.shard_names,
            self.shard_sizes,
            self.buffer,
            self.lanes,
            self.columns.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True)
class Window:
    """A part of a lane that is read whole, then shown in another order."""

    epoch: int
    lane: int
    start: int  # in the line of the epoch's shards
    size: int

    def order(self, seed: int) -> np.ndarray:
        """(size,) the order in which its samples are shown."""
        key = seeding.stable(seed, self.epoch, self.lane, self.start, "window")
        return np.random.Generator(np.random.Philox(key=key)).permutation(self.size)


def lane_count(stream: Stream, batch_size: int, world: int) -> int:
    """How many lanes fill a batch: as many as the stream has, where they divide it.

    Raises: RecipeError when the processes cannot share them.
    """
    lanes = gcd(stream.lanes, batch_size)
    if lanes % world:
        raise RecipeError(
            f"corpus.options.lanes: {lanes} lanes cannot be shared by {world} processes: take a multiple of "
            f"{world} that divides train.batch_size, {batch_size}"
        )
    return lanes


def windows(n: int, lane: int, lanes: int, start: int, wide: int) -> Iterator[tuple[Window, int]]:
    """A lane's windows from its `start`-th pair on, without end; and how many pairs of each lie before it."""
    epoch = start * lanes // n
    while _taken(epoch, n, lane, lanes) > start:
        epoch -= 1
    while _taken(epoch + 1, n, lane, lanes) <= start:
        epoch += 1
    t = start - _taken(epoch, n, lane, lanes)
    while True:
        first, size = _piece(epoch, n, lane, lanes)
        for at in range(t // wide * wide, size, wide):
            yield Window(epoch, lane, first + at, min(wide, size - at)), max(0, t - at)
        epoch, t = epoch + 1, 0


def _taken(epochs: int, n: int, lane: int, lanes: int) -> int:
    """How many pairs a lane takes in the first epochs: what dealing them out one by one would give it."""
    return max(0, -(-(epochs * n - lane) // lanes))


def _piece(epoch: int, n: int, lane: int, lanes: int) -> tuple[int, int]:
    """Where a lane's piece of an epoch begins, and how long it is."""
    sizes = [_taken(epoch + 1, n, one, lanes) - _taken(epoch, n, one, lanes) for one in range(lane + 1)]
    return sum(sizes[:-1]), sizes[-1]


class EpochReader:
    """Reads the epoch's line of shards from any place on; going on where it stopped costs nothing."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream = stream
        self.seed = seed
        self.line: Iterator[SourceRow | None] = iter(())
        self.next: tuple[int, int] | None = None  # epoch and place that the open line comes to
        self.log = ReadLog()

    def rows(self, window: Window) -> list[SourceRow | None]:
        """(size,) the rows of a window."""
        if self.next != (window.epoch, window.start):
            self.line = self._line(window.epoch, window.start)
        rows = list(islice(self.line, window.size))
        self.next = (window.epoch, window.start + window.size)
        return rows

    def _line(self, epoch: int, start: int) -> Iterator[SourceRow | None]:
        counts = self.stream.shard_sizes
        shards = np.random.Generator(
            np.random.Philox(key=seeding.stable(self.seed, epoch, "shards"))
        ).permutation(len(counts))
        ends = list(accumulate(int(counts[shard]) for shard in shards))
        for shard, end in zip(shards.tolist(), ends, strict=True):
            if end <= start:  # it is behind: never opened
                continue
            skip = max(0, start - (end - counts[shard]))
            yield from self.stream.read_shard(shard, skip, self.log)
