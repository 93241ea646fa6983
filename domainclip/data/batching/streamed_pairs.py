"""Training pairs of a stream, in batches, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from domainclip import seeding
from domainclip.data.batching import order
from domainclip.data.batching.batch import Batch, Pair, collate, join_parts
from domainclip.data.batching.decoding_pool import PlannedPair, pooled_batches
from domainclip.data.batching.pairs import Pairs
from domainclip.data.rows import SourceRow
from domainclip.data.streaming import EpochReader, Stream, Window, lane_count, windows
from domainclip.errors import DataError


class StreamedPairs(Pairs):
    """The pairs of a stream. Its items are a sample of it, which can be indexed; `batches` returns all."""

    is_streamed: ClassVar[bool] = True

    def __init__(self, stream: Stream, make_pairs: Callable[..., Pairs], items: Dataset, seed: int) -> None:
        """`make_pairs(items, seed=…)` returns the pairs of some items, with the options of the recipe."""
        sample = make_pairs(items, seed=seed)
        vars(self).update(vars(sample))  # every attribute of Pairs is that of the sample
        self.sample = sample
        self.stream = stream
        self.make_pairs = make_pairs

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, position: order.Position) -> Pair:
        """A pair of the sample, for measurements."""
        epoch, requested = position
        return self.sample[epoch, requested % len(self.sample)]

    def batches(
        self, start: int, total: int, batch_size: int, workers: int, rank: int, world: int
    ) -> Iterator[Batch]:
        """This process's share of the batches of steps `start` to `total`."""
        lanes = lane_count(self.stream, batch_size, world)
        own_lanes = order.process_share(list(range(lanes)), rank, world, "corpus.options.lanes")
        if workers > len(own_lanes) and self.extra_spec.second_view != "same_group":
            first = start * (batch_size // lanes)
            lines = [self.planned(lane, lanes, first) for lane in own_lanes]
            return pooled_batches(lines, batch_size // lanes, total - start, workers)
        active_workers = min(workers, len(own_lanes))
        source = _LaneBatches(self, own_lanes, lanes, batch_size // lanes, start, total)
        loader: DataLoader[Any] = DataLoader(source, batch_size=None, num_workers=active_workers)
        return join_parts(iter(loader), max(1, active_workers))

    def lane(self, lane: int, lanes: int, start: int) -> Iterator[Pair]:
        """The pairs of one lane from its `start`-th on, without end."""
        return (planned.pair() for planned in self.planned(lane, lanes, start))

    def planned(self, lane: int, lanes: int, start: int) -> Iterator[PlannedPair]:
        """The pairs of one lane from its `start`-th on, without end, before their images are decoded."""
        reader = EpochReader(self.stream, self.seed)
        window_size = max(1, self.stream.buffer // lanes)
        for window, skipped in windows(len(self), lane, lanes, start, window_size):
            yield from islice(self._pairs_of(window, reader), skipped, None)

    def _pairs_of(self, window: Window, reader: EpochReader) -> Iterator[PlannedPair]:
        """The pairs of a window in shuffled order; an unusable row is replaced by the next usable one."""
        rows, log = reader.rows(window), reader.log
        items = self.stream.to_items(rows, log)
        unusable = tuple(log.unusable)
        log.unusable.clear()
        log.notes.clear()  # the notes of the sample were reported when it was read
        if not len(items):
            reason = unusable[0].reason if unusable else "no pair in them"
            raise DataError(
                f"corpus: none of {window.size} samples in a row can be used; the first: {reason}"
            )
        item_of_row = _usable_rows(rows, [log.locations[id] for id in items["id"][:]])
        # Each window draws captions and crops from a separate seed.
        pairs = self.make_pairs(items, seed=seeding.stable(self.seed, window.lane, window.start, "draws"))
        for row in window.order(self.seed).tolist():
            yield PlannedPair(pairs, window.epoch, item_of_row[row], window.start + row, unusable)
            unusable = ()  # reported once, with the first pair


def _usable_rows(rows: Sequence[SourceRow | None], usable_locations: Sequence[str]) -> list[int]:
    """For each row of a window, the number of the usable item that is shown: its item, or the next one."""
    item_at = {location: item for item, location in enumerate(usable_locations)}
    items, following = [0] * len(rows), 0
    for place in reversed(range(len(rows))):
        row = rows[place]
        following = items[place] = following if row is None else item_at.get(row.location, following)
    return items


class _LaneBatches(IterableDataset[Batch]):
    """The part of every batch that some lanes fill; each worker reads some of these lanes."""

    def __init__(
        self,
        pairs: StreamedPairs,
        lanes: list[int],
        total_lanes: int,
        pairs_per_lane: int,
        start: int,
        total: int,
    ) -> None:
        self.pairs = pairs
        self.lanes = lanes
        self.total_lanes = total_lanes
        self.pairs_per_lane = pairs_per_lane
        self.steps = range(start, total)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        n = len(self.lanes)
        lanes = self.lanes[n * worker // workers : n * (worker + 1) // workers]
        first = self.steps.start * self.pairs_per_lane
        lines = [self.pairs.lane(lane, self.total_lanes, first) for lane in lanes]
        for _ in self.steps:
            yield collate([pair for line in lines for pair in islice(line, self.pairs_per_lane)])
