"""Work in other processes, its results in order: for pictures, whose decoders hold the interpreter's lock."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from domainclip.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_AHEAD = 4  # tasks a worker may be ahead of the result that is waited for: what bounds the memory


def map_in_order(
    call: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, by so many processes; one is this process itself.

    Raises: DataError when a worker is ended from outside; what `call` raises.
    """
    if workers <= 1:
        yield from ((task, call(task)) for task in tasks)
        return
    # A fresh interpreter each: forked ones would inherit locks that threads of libraries hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            waiting.append((task, pool.submit(call, task)))
            if len(waiting) >= _AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for task, future in waiting:
            yield task, future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process was ended from outside, perhaps for its memory: take fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_memory() -> None:
    """glibc gives every large array back to the system at once, and clearing its pages anew for the next
    picture is a quarter of the time that a large film takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for limit in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(limit, 2**30)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says what happened
    _keep_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        wait([parent.sentinel])
        os._exit(1)  # killed, it could not tell its workers to stop

    threading.Thread(target=end_with_it, daemon=True).start()
