"""The batches of a run from any step on, of stored and of streamed pairs.

Workers load a few pairs at a time, which are joined to a batch here: the first batch is shared by all of
them, and what waits in memory does not grow with the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import torch
from torch.utils.data import DataLoader

from domainclip.data.batching.batch import Batch, collate, join_parts
from domainclip.data.batching.order import Position, rank_slice
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.prefetch import prefetched
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.data.batching.workers import PAIRS_PER_TASK, TASKS_AHEAD, Workers, worker_count
from domainclip.distributed import collectives


def batches(pairs: Pairs, start: int, total: int, batch_size: int, *, workers: Workers) -> Iterator[Batch]:
    """This process's share of each step's batch, for steps `start` to `total`.

    With workers or a GPU, the next batch is joined, and copied to pinned memory, while the last one is used.

    Raises: RecipeError when the processes cannot share a batch equally.
    """
    rank, world = collectives.rank(), collectives.process_count()
    count = _worker_count(pairs, workers, (total - start) * batch_size // world)
    if isinstance(pairs, StreamedPairs):
        joined = pairs.batches(start, total, batch_size, count, rank, world)
    else:
        joined = _stored(pairs, start, total, batch_size, count)
    on_gpu = torch.cuda.is_available()
    return prefetched(joined, Batch.pinned if on_gpu else _unchanged) if count or on_gpu else joined


def _worker_count(pairs: Pairs, workers: Workers, images: int) -> int:
    if workers != "auto":
        return workers
    if not pairs.pixels or pairs.cached_pixels is not None:  # reading is faster than handing over
        return 0
    example = pairs[0, 0].image or {}
    return worker_count(workers, images, sum(array.nbytes for array in example.values()))


def _stored(pairs: Pairs, start: int, total: int, batch_size: int, workers: int) -> Iterator[Batch]:
    rank, world = collectives.rank(), collectives.process_count()
    first = rank_slice(pairs.positions(start, batch_size), rank, world)  # or an error
    parts_of_step = ceil(len(first) / PAIRS_PER_TASK)

    def tasks() -> Iterator[list[Position]]:
        for at in range(start, total):
            rows = rank_slice(pairs.positions(at, batch_size), rank, world)
            yield from (rows[i : i + PAIRS_PER_TASK] for i in range(0, len(rows), PAIRS_PER_TASK))

    loader: DataLoader[Any] = DataLoader(
        pairs,
        batch_sampler=tasks(),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=TASKS_AHEAD if workers else None,
    )
    return join_parts(iter(loader), parts_of_step)


def _unchanged(batch: Batch) -> Batch:
    return batch
