"""Training pairs of a stream, in batches, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from domainclip import seeding
from domainclip.data.batching import order
from domainclip.data.batching.extras import join_extras
from domainclip.data.batching.pairs import Batch, Pair, Pairs, collate
from domainclip.data.rows import SourceRow
from domainclip.data.streaming import EpochReader, Stream, Window, lane_count, windows
from domainclip.data.text import captions
from domainclip.errors import DataError


class StreamedPairs(Pairs):
    """The pairs of a stream. Its items are a sample of it, which can be indexed; `batches` shows all.

    Pairs with the same caption are never each other's negatives where the corpus has no groups. Where it has,
    a caption counts as shared when two groups of the sample share it: the whole is never seen at once.
    """

    def __init__(self, stream: Stream, make: Callable[..., Pairs], items: Dataset, seed: int) -> None:
        """`make(items, seed=…)` gives the pairs of some items, shown as the recipe says."""
        few = make(items, seed=seed)
        vars(self).update(vars(few))  # whatever one asks of pairs is answered by the sample
        self.sample = few
        self.stream = stream
        self.make_pairs = make
        holders: dict[str, set[str]] = {}
        for own, group in zip(few.texts, items["group"][:], strict=True):
            for text in own:
                holders.setdefault(captions.normalise(text), set()).add(group)
        self.shared_captions = {text for text, groups in holders.items() if len(groups) > 1}

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, position: order.Position) -> Pair:
        """A pair of the sample, to measure with."""
        epoch, asked = position
        return self.sample[epoch, asked % len(self.sample)]

    def batches(
        self, start: int, total: int, batch_size: int, workers: int, rank: int, world: int
    ) -> Iterator[Batch]:
        """This process's share of the batches of steps `start` to `total`."""
        lanes = lane_count(self.stream, batch_size, world)
        mine = order.process_share(list(range(lanes)), rank, world, "corpus.options.lanes")
        each = min(workers, len(mine))
        source = _Lanes(self, mine, lanes, batch_size // lanes, start, total)
        loader: DataLoader[Any] = DataLoader(source, batch_size=None, num_workers=each)
        parts = iter(loader)
        while part := list(islice(parts, max(1, each))):
            yield _joined(part)

    def lane(self, lane: int, lanes: int, start: int) -> Iterator[Pair]:
        """The pairs of one lane from its `start`-th on, without end."""
        reader = EpochReader(self.stream, self.seed)
        wide = max(1, self.stream.buffer // lanes)
        for window, before in windows(len(self), lane, lanes, start, wide):
            yield from islice(self._shown(window, reader), before, None)

    def _shown(self, window: Window, reader: EpochReader) -> Iterator[Pair]:
        rows, log = reader.rows(window), reader.log
        items = self.stream.to_items(rows, log)
        bad = tuple(log.unusable)
        log.unusable.clear()
        log.notes.clear()  # told when the sample was read, and never the same twice
        if not len(items):
            why = bad[0].reason if bad else "no pair in them"
            raise DataError(f"corpus: none of {window.size} samples in a row can be used; the first: {why}")
        row_of = _stand_ins(rows, [log.locations[id] for id in items["id"][:]])
        # Each window draws its own captions and crops.
        pairs = self.make_pairs(items, seed=seeding.stable(self.seed, window.lane, window.start, "draws"))
        groups = items["group"][:]
        for place in window.order(self.seed).tolist():
            pair = pairs[window.epoch, row_of[place]]
            number = self._group(pair.text, groups[pair.index])
            at = window.start + place
            yield replace(pair, group=number, index=at, requested=at, unusable=(*bad, *pair.unusable))
            bad = ()  # told once

    def _group(self, text: str, group: str) -> int:
        """The number that pairs share which are never each other's negatives."""
        said = captions.normalise(text)
        by_caption = bool(said) and (not self.stream.columns.group or said in self.shared_captions)
        return seeding.stable(*(("caption", said) if by_caption else ("group", group))) >> 1  # fits int64


def _stand_ins(rows: Sequence[SourceRow | None], usable: Sequence[str]) -> list[int]:
    """For each row of a window, which of the usable ones is shown in its place: itself, or the next."""
    number = {place: row for row, place in enumerate(usable)}
    shown, following = [0] * len(rows), 0
    for place in reversed(range(len(rows))):
        row = rows[place]
        following = shown[place] = following if row is None else number.get(row.location, following)
    return shown


class _Lanes(IterableDataset[Batch]):
    """Some lanes of every batch; a worker takes some of them."""

    def __init__(
        self, pairs: StreamedPairs, lanes: list[int], of: int, each: int, start: int, total: int
    ) -> None:
        self.pairs = pairs
        self.lanes = lanes
        self.of = of
        self.each = each
        self.steps = range(start, total)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        at, workers = (0, 1) if info is None else (info.id, info.num_workers)
        n = len(self.lanes)
        mine = self.lanes[n * at // workers : n * (at + 1) // workers]
        lines = [self.pairs.lane(lane, self.of, self.steps.start * self.each) for lane in mine]
        for _ in self.steps:
            yield collate([pair for line in lines for pair in islice(line, self.each)])


def _joined(parts: list[Batch]) -> Batch:
    """The lanes of several workers as one batch, in order."""
    if len(parts) == 1:
        return parts[0]
    return Batch(
        image=_stacked([part.image for part in parts]),
        texts=[text for part in parts for text in part.texts],
        group=torch.cat([part.group for part in parts]),
        index=torch.cat([part.index for part in parts]),
        ids=[id for part in parts for id in part.ids],
        requested=torch.cat([part.requested for part in parts]),
        unusable=[item for part in parts for item in part.unusable],
        second_view=_stacked([part.second_view for part in parts]),
        extras=join_extras([part.extras for part in parts]),
    )


def _stacked(images: list[dict[str, torch.Tensor] | None]) -> dict[str, torch.Tensor] | None:
    known = [image for image in images if image is not None]
    return {name: torch.cat([image[name] for image in known]) for name in known[0]} if known else None
