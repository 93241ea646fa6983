"""Work in chunks of a fixed size, distributed over the processes of a run.

A matrix product may round differently when its shape changes, and one bit can change a rank. So a model
always encodes the same chunks of a set, on any process, and the batch size is not an option.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from domainclip.data.process_pool import available_cores
from domainclip.distributed.collectives import (
    gather_objects,
    keep_alive,
    local_process_count,
    process_count,
    rank,
)

SIZE = 32  # rows that a model encodes together
_AHEAD = 4  # chunks that are loaded while a model encodes
T = TypeVar("T")


def split(rows: Sequence[T], size: int = SIZE) -> Iterator[Sequence[T]]:
    """The rows in chunks of `size`; the last may be shorter."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def map_chunks(
    work: Callable[[Any], T],
    rows: Sequence[Any],
    load: Callable[[Sequence[Any]], Iterator[Any]] = iter,
    size: int = SIZE,
) -> list[T]:
    """The result of `work` for every chunk of the rows, in order, on every process.

    Each process works on its share. `load` turns the chunks of a process into the arguments of `work`.
    """
    chunks = list(split(rows, size))
    share = range(rank(), len(chunks), process_count())
    loaded = load([chunks[index] for index in share])
    with keep_alive("embeddings of all processes"):
        results = {index: work(chunk) for index, chunk in zip(share, loaded, strict=True)}
    gathered = {index: result for part in gather_objects(results) for index, result in part.items()}
    return [gathered[index] for index in range(len(chunks))]


def _threads() -> int:
    return max(1, available_cores() // local_process_count())


def load_ahead(load: Callable[[int], T], chunks: Sequence[Sequence[int]]) -> Iterator[list[T]]:
    """The loaded rows of each chunk; threads load the next chunks while the caller works on this one."""
    # Decoders change the warning filters while they run, and threads would leave them changed.
    with warnings.catch_warnings(), ThreadPoolExecutor(_threads()) as pool:
        pending: deque[list[Future[T]]] = deque()
        for chunk in chunks:
            pending.append([pool.submit(load, row) for row in chunk])
            if len(pending) > _AHEAD:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
