"""The memory of a corpus that is read: no search for garbage in it, and what is free goes back to the system.

Reading a corpus takes a kilobyte for each pair for a while, as millions of small objects. The allocators of C
and Arrow hold such memory, so that a process that trains for days would seem to use it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")
_NEVER = 2**31 - 1  # collections of the second generation


@contextmanager
def without_full_collections() -> Iterator[None]:
    """Within, Python searches new objects for unused cycles, but not all of them again and again.

    The rows of a corpus only become more, and a search through all of them takes a tenth of the time.
    """
    young, middle, full = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, full)


def drain(values: list[T]) -> Iterator[T]:
    """The values in order, each removed from the list: what they are turned into takes their place."""
    values.reverse()
    while values:
        yield values.pop()


def return_freed_memory() -> None:
    """Return what is free to the system, where its C library can (glibc); elsewhere only Arrow's."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
