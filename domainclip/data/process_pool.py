"""Calls in worker processes, results in order: for images, whose decoders hold the interpreter's lock."""

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
_TASKS_PER_WORKER = 4  # submitted ahead of the result that is awaited: this bounds the memory


def map_in_order(
    call: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, computed by `workers` processes; with one, by this process itself.

    Raises: DataError when a worker is killed; any exception that `call` raises.
    """
    if workers <= 1:
        yield from ((task, call(task)) for task in tasks)
        return
    # A fresh interpreter each: forked ones would inherit locks that threads of libraries hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_init_worker)
    pending: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            pending.append((task, pool.submit(call, task)))
            if len(pending) >= _TASKS_PER_WORKER * workers:
                first, future = pending.popleft()
                yield first, future.result()
        for task, future in pending:
            yield task, future.result()
    except BrokenProcessPool:
        raise DataError("a worker process was killed, perhaps for its memory: use fewer workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _retain_freed_memory() -> None:
    """Make glibc reuse freed memory: it returns every large array to the system at once, and clearing fresh
    pages for the next image is a quarter of the time that a large radiograph takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for limit in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(limit, 2**30)


def _init_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process reports the interruption
    _retain_freed_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)  # a killed parent cannot stop its workers

    threading.Thread(target=exit_with_parent, daemon=True).start()
