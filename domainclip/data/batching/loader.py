"""The batches of a run from any step on, of stored and of streamed pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from domainclip.data.batching.batch import Batch, collate
from domainclip.data.batching.order import batch_positions, rank_slice
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.distributed import collectives


def batches(
    pairs: Pairs, start: int, total: int, batch_size: int, *, seed: int, workers: int
) -> Iterator[Batch]:
    """This process's share of each step's batch, for steps `start` to `total`.

    Raises: RecipeError when the processes cannot share a batch equally.
    """
    rank, world = collectives.rank(), collectives.process_count()
    if isinstance(pairs, StreamedPairs):
        return pairs.batches(start, total, batch_size, workers, rank, world)
    n, strata = len(pairs), pairs.strata
    order = (
        rank_slice(batch_positions(at, batch_size, n, seed, strata), rank, world)
        for at in range(start, total)
    )
    loader: DataLoader[Any] = DataLoader(pairs, batch_sampler=order, collate_fn=collate, num_workers=workers)
    return iter(loader)
