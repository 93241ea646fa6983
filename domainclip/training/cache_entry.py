"""One entry of the feature cache: a budget reserves its space, and all processes fill it together."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from domainclip import disk_cache
from domainclip.distributed import collectives

_KIND = "features"


@dataclass
class CacheBudget:
    """The disk space for a run's features, and a note for the user on each entry that was asked for."""

    limit: float  # bytes of all cached features of this user
    used: int = 0  # bytes of them that this run uses
    notes: list[str] = field(default_factory=list)
    last_reserved: tuple[str, int] = ("", 0)  # description and bytes of the newest entry

    def reserve(self, description: str, shape: Sequence[int], name: str) -> bool:
        """Reserve space for an entry of float32 numbers; return whether it fits or exists already."""
        size = 4 * int(np.prod(shape))
        description = f"{description}, {size / 1e9:.2f} GB"
        free = collectives.on_first_process(disk_cache.free_bytes)
        if not disk_cache.Budget(_KIND, self.limit).fits(self.used + size):
            self.notes.append(f"not cached: {description}: more than train.feature_cache_gb allows")
            return False
        missing = is_missing(name)
        if missing and not disk_cache.has_room(size, free):
            left = f"the disk of {disk_cache.root()} has {free / 1e9:.2f} GB left"
            self.notes.append(f"not cached: {description}: {left}")
            return False
        self.used += size
        self.last_reserved = (description, size)
        self.notes.append(f"{'cached' if missing else 'reused'}: {description} in {disk_cache.root()}")
        return True

    def release(self, reason: str) -> None:
        """Give back the space that was reserved last, and note why its entry could not be cached."""
        description, size = self.last_reserved
        self.used -= size
        self.notes[-1] = f"not cached: {description}: {reason}"


def is_missing(name: str) -> bool:
    """Return whether an entry has to be made; all processes agree."""
    return bool(collectives.max_over_processes(disk_cache.read(_KIND, name) is None))


def load_or_fill(
    name: str,
    shape: Sequence[int],
    dtype: Any,
    fill: Callable[[np.ndarray], None],
    budget: CacheBudget,
    *,
    first_process_writes: bool = False,
) -> np.ndarray | None:
    """Return the array of an entry, filled first if it is missing: each process fills its share of the rows.

    `first_process_writes`: all processes compute all rows. None when the entry cannot be cached, which the
    budget notes; the caller then computes the features anew in every epoch.
    """
    problem = ""
    if is_missing(name):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        disk = disk_cache.Budget(_KIND, budget.limit)
        try:
            collectives.on_first_process(lambda: disk.prune(size))
            _fill_together(name, shape, dtype, fill, first_process_writes)
        except OSError as error:
            problem = error.strerror or type(error).__name__
    problems = collectives.gather_objects(problem)  # also waits until the entry is complete
    array = disk_cache.read(_KIND, name)
    if any(collectives.gather_objects(array is None)):
        problems.append("another run has removed it")
    if first := next(filter(None, problems), ""):
        budget.release(f"{disk_cache.root()}: {first}; DOMAINCLIP_CACHE names another folder")
        return None
    return array


def _fill_together(
    name: str,
    shape: Sequence[int],
    dtype: Any,
    fill: Callable[[np.ndarray], None],
    first_process_writes: bool,
) -> None:
    """Raises: OSError, on one process or all. It passes through the open entry, which removes its draft."""
    with ExitStack() as open_entry:
        entry = disk_cache.writing(_KIND, name, tuple(shape), dtype, {"shape": list(shape)})
        file = collectives.on_first_process(
            lambda: str(getattr(open_entry.enter_context(entry), "filename", ""))
        )
        if not min(collectives.gather_objects(Path(file).exists())):
            raise OSError(errno.EIO, "not every process sees its folder")
        array, problem = np.load(file, mmap_mode="r+", allow_pickle=False), ""
        writes = not first_process_writes or collectives.rank() == 0
        with collectives.keep_alive("what all processes keep"):
            try:
                fill(array if writes else np.empty(shape, dtype))
                array.flush()
            except OSError as error:
                problem = error.strerror or type(error).__name__
        if first := next(filter(None, collectives.gather_objects(problem)), ""):
            raise OSError(errno.EIO, first)
