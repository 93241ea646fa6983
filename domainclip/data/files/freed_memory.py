"""Memory that was freed and that the allocators hold for later: returned to the system.

Reading a corpus takes a kilobyte for each pair for a while, as millions of small objects. The allocators of C
and Arrow hold such memory, so that a process that trains for days would seem to use it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress


def return_freed_memory() -> None:
    """Return what is free to the system, where its C library can (glibc); elsewhere only Arrow's."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
