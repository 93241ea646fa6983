"""The batches of a stream where more processes decode than lanes are read: one reads, all others decode.

A lane is read in the order of its shards, so one process reads it. A thread for each lane reads ahead, and
the rows of a few pairs, with the bytes of their images, go to whichever process is free.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from domainclip.data.batching.batch import Batch, Pair, collate
from domainclip.data.batching.extras import ExtraColumns, ExtraSpec
from domainclip.data.batching.pairs import Pairs, Views
from domainclip.data.batching.prefetch import prefetched
from domainclip.data.batching.workers import PAIRS_PER_TASK, TASKS_AHEAD
from domainclip.data.quarantine import UnusableItem
from domainclip.errors import UnreadableImage


@dataclass(frozen=True)
class PlannedPair:
    """A pair of a stream before its image is decoded."""

    pairs: Pairs  # those of its window
    epoch: int
    item: int  # its row in them
    position: int  # in the stream
    unusable: tuple[UnusableItem, ...] = ()  # rows that could not be used, reported with this pair

    def pair(self, views: Views | None = None) -> Pair:
        """Return the pair with its image, decoded here where it is not given."""
        if views is None:
            pair = self.pairs[self.epoch, self.item]
        else:
            pair = self.pairs.with_views(self.epoch, self.item, views)
        unusable = (*self.unusable, *pair.unusable)
        return replace(pair, index=self.position, requested=self.position, unusable=unusable)


@dataclass(frozen=True)
class _Request:
    """What decodes the image of a pair, without the rest of its window."""

    pairs: Pairs
    epoch: int
    item: int


@dataclass(frozen=True)
class _Decoded:
    """The images of a few pairs, stacked for shared memory; those that cannot be read are left out."""

    images: dict[str, Tensor]
    second_views: dict[str, Tensor]
    # By pair: views that could not be read, each replaced by another; None: the image cannot be read at all.
    unreadable: list[tuple[UnusableItem, ...] | None]

    def views(self) -> Iterator[Views | None]:
        """The views of each pair; None for an image that cannot be read."""
        row = 0
        for unreadable in self.unreadable:
            if unreadable is None:
                yield None
                continue
            second = {name: array[row].numpy() for name, array in self.second_views.items()}
            image = {name: array[row].numpy() for name, array in self.images.items()}
            yield image, second or None, unreadable
            row += 1


def pooled_batches(
    lines: Sequence[Iterator[PlannedPair]], pairs_per_lane: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The batches of so many steps from the endless lines of this process's lanes."""
    ahead = 2 * pairs_per_lane
    reading = [prefetched(line, _unchanged, ahead) for line in lines]
    waiting: deque[list[PlannedPair]] = deque()

    def tasks() -> Iterator[list[_Request]]:
        for _ in range(steps):
            batch = [planned for line in reading for planned in islice(line, pairs_per_lane)]
            for start in range(0, len(batch), PAIRS_PER_TASK):
                part = batch[start : start + PAIRS_PER_TASK]
                waiting.append(part)
                yield [_Request(_of_one_item(one.pairs, one.item), one.epoch, one.item) for one in part]

    loader: DataLoader[Any] = DataLoader(
        _Decoder(),
        sampler=tasks(),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=TASKS_AHEAD,
        collate_fn=_unchanged,
    )
    parts_of_step = ceil(len(lines) * pairs_per_lane / PAIRS_PER_TASK)
    try:
        decoded = iter(loader)
        while parts := list(islice(decoded, parts_of_step)):
            pairs = [
                planned.pair(views)
                for part in parts
                for planned, views in zip(waiting.popleft(), part.views(), strict=True)
            ]
            yield collate(pairs)
    finally:
        for line in reading:
            line.close()  # type: ignore[attr-defined]


def _of_one_item(pairs: Pairs, item: int) -> Pairs:
    """What `Pairs.views_of` reads of these pairs for one item."""
    one, row = copy.copy(pairs), pairs.items[item]
    one.items = {item: {"image": row["image"], "views": row["views"]}}
    one.ids = {item: pairs.ids[item]}  # type: ignore[assignment]
    one.caption_pools, one.groups, one.captions = (), (), None
    one.extra_spec = ExtraSpec(second_view=pairs.extra_spec.second_view)
    one.extra_columns = ExtraColumns(pairs.items, ExtraSpec())
    return one


class _Decoder(Dataset[_Decoded]):
    """Decodes the images of a few pairs."""

    def __getitem__(self, requests: list[_Request]) -> _Decoded:
        views: list[Views] = []
        unreadable: list[tuple[UnusableItem, ...] | None] = []
        for request in requests:
            try:
                views.append(request.pairs.views_of(request.epoch, request.item))
                unreadable.append(views[-1][2])
            except UnreadableImage:
                unreadable.append(None)  # replaced where the other images of its window are
        return _Decoded(
            _stacked([image for image, _, _ in views]),
            _stacked([second for _, second, _ in views]),
            unreadable,
        )


def _stacked(images: Sequence[dict[str, np.ndarray] | None]) -> dict[str, Tensor]:
    present = [image for image in images if image is not None]
    if not present:
        return {}
    return {name: torch.from_numpy(np.stack([image[name] for image in present])) for name in present[0]}


def _unchanged(value: Any) -> Any:
    return value
