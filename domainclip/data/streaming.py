"""The order of a stream: a pure function of the seed and the position, for any number of readers.

A stream is read in `lanes`: each lane has a separate position in the stream, and fills the same places of
every batch. In an epoch the shards are put in the order of (seed, epoch), laid end to end, and cut into one
segment per lane, so that every pair is in one segment and the segments are equally long, to a pair. A lane
shuffles its segment window by window. Processes and workers divide the lanes among them, so that neither
their number nor a resume changes the pairs of a step; only a window is in memory, and a shard that has been
passed is never opened.

Legend: n pairs of the stream, t position in a lane's segment of an epoch.
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
from domainclip.data.cards import Card
from domainclip.data.files.column_roles import Columns
from domainclip.data.quarantine import ReadLog
from domainclip.data.rows import SourceRow, to_dataset, usable_items
from domainclip.errors import DataError, RecipeError

SAMPLE_SIZE = 1024  # training pairs that represent a stream in the checks
_END = object()  # of rows
# (shard, first sample, log) -> the rows of the shard from there on; None for an unusable one.
OpenShard = Callable[[int, int, ReadLog], Iterator[SourceRow | None]]


@dataclass(frozen=True)
class Stream:
    """Training pairs that are read again in every epoch, and never in memory as a whole."""

    shard_sizes: tuple[int, ...]  # samples of each shard
    open_shard: OpenShard
    columns: Columns
    card: Card
    shard_names: tuple[str, ...]
    buffer: int = 2048  # pairs in memory for shuffling, over all lanes
    lanes: int = 8
    label_separator: str | None = None
    secret: bytes | None = None  # the key of the pseudonyms that replace ids; None: ids are unchanged

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def to_items(self, rows: Iterable[SourceRow | None], log: ReadLog) -> Dataset:
        """Some rows in the standard columns; `log.locations` then holds the usable ones."""
        # Splits come from the shards and ids from their names: no column that needs the whole stream.
        columns = self.columns.model_copy(update={"split": "", "id": ""})
        training_rows = [replace(row, split="train") for row in rows if row is not None]
        items = usable_items(training_rows, columns, self.card, log, self.label_separator)["train"]
        if self.secret is not None:
            items = [replace(item, id=pseudonyms.pseudonym(item.id, self.secret)) for item in items]
        log.locations = {item.id: item.location for item in items}
        return to_dataset(items)

    def rows(self, log: ReadLog) -> Iterator[dict[str, Any]]:
        """Every usable row once, in the order of the shards."""
        for shard in range(len(self.shard_sizes)):
            rows = self.read_shard(shard, 0, log)
            while chunk := list(islice(rows, SAMPLE_SIZE)):
                yield from self.to_items(chunk, log)

    def read_shard(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        """The rows of a shard from the `start`-th on, as many as its recorded size.

        Raises: DataError for a shard of another size: pairs would be lost, or shown twice.
        """
        expected = self.shard_sizes[shard] - start
        if not expected:  # an empty shard
            return
        rows = self.open_shard(shard, start, log)
        for number, row in enumerate(rows, start=1):
            # Checked before the last row is yielded: the caller requests no row after it.
            if number == expected and next(rows, _END) is not _END:
                break
            yield row
            if number == expected:
                return
        size = sum(1 for _ in self.open_shard(shard, 0, ReadLog()))
        raise DataError(
            f"shard {self.shard_names[shard]}: holds {size} samples and not {self.shard_sizes[shard]}: mend "
            "or remove the sizes.json or manifest.json beside it; where there is none, it was changed: start "
            "again"
        )

    def fingerprint(self) -> str:
        """sha256 of everything that determines the order: shards, their sizes, and the reader's options."""
        facts = [
            self.shard_names,
            self.shard_sizes,
            self.buffer,
            self.lanes,
            self.columns.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Window:
    """A part of a lane that is read as a whole, then shuffled."""

    epoch: int
    lane: int
    start: int  # position in the epoch's shards, laid end to end
    size: int

    def order(self, seed: int) -> np.ndarray:
        """(size,) the shuffled order of its samples."""
        key = seeding.stable(seed, self.epoch, self.lane, self.start, "window")
        return np.random.Generator(np.random.Philox(key=key)).permutation(self.size)


def lane_count(stream: Stream, batch_size: int, world: int) -> int:
    """The number of lanes that fill a batch: that of the stream, where it divides the batch size.

    Raises: RecipeError when the processes cannot share them.
    """
    lanes = gcd(stream.lanes, batch_size)
    if lanes % world:
        raise RecipeError(
            f"corpus.options.lanes: {lanes} lanes cannot be shared by {world} processes: take a multiple of "
            f"{world} that divides train.batch_size, {batch_size}"
        )
    return lanes


def windows(n: int, lane: int, lanes: int, start: int, size: int) -> Iterator[tuple[Window, int]]:
    """A lane's windows from its `start`-th pair on, without end, each with the number of pairs to skip."""
    epoch = start * lanes // n
    while _pairs_before_epoch(epoch, n, lane, lanes) > start:
        epoch -= 1
    while _pairs_before_epoch(epoch + 1, n, lane, lanes) <= start:
        epoch += 1
    t = start - _pairs_before_epoch(epoch, n, lane, lanes)
    while True:
        first, length = _segment(epoch, n, lane, lanes)
        for offset in range(t // size * size, length, size):
            yield Window(epoch, lane, first + offset, min(size, length - offset)), max(0, t - offset)
        epoch, t = epoch + 1, 0


def _pairs_before_epoch(epoch: int, n: int, lane: int, lanes: int) -> int:
    """The number of pairs of a lane before an epoch, as when the pairs are dealt to the lanes in turn."""
    return max(0, -(-(epoch * n - lane) // lanes))


def _segment(epoch: int, n: int, lane: int, lanes: int) -> tuple[int, int]:
    """The start and the length of a lane's segment of an epoch."""
    sizes = [
        _pairs_before_epoch(epoch + 1, n, i, lanes) - _pairs_before_epoch(epoch, n, i, lanes)
        for i in range(lane + 1)
    ]
    return sum(sizes[:-1]), sizes[-1]


class EpochReader:
    """Reads the shards of an epoch from any position; continuing where it stopped costs nothing."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream = stream
        self.seed = seed
        self.open_rows: Iterator[SourceRow | None] = iter(())
        self.next: tuple[int, int] | None = None  # epoch and position of the next row of the open shard
        self.log = ReadLog()

    def rows(self, window: Window) -> list[SourceRow | None]:
        """(size,) the rows of a window."""
        if self.next != (window.epoch, window.start):
            self.open_rows = self._rows_from(window.epoch, window.start)
        rows = list(islice(self.open_rows, window.size))
        self.next = (window.epoch, window.start + window.size)
        return rows

    def _rows_from(self, epoch: int, start: int) -> Iterator[SourceRow | None]:
        counts = self.stream.shard_sizes
        shards = np.random.Generator(
            np.random.Philox(key=seeding.stable(self.seed, epoch, "shards"))
        ).permutation(len(counts))
        ends = list(accumulate(int(counts[shard]) for shard in shards))
        for shard, end in zip(shards.tolist(), ends, strict=True):
            if end <= start:  # already passed: never opened
                continue
            skip = max(0, start - (end - counts[shard]))
            yield from self.stream.read_shard(shard, skip, self.log)
