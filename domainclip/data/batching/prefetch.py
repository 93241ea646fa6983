"""Items of an iterator, made by a thread ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetched(source: Iterator[T], prepare: Callable[[T], T], ahead: int = 1) -> Iterator[T]:
    """The items of `source`, each passed through `prepare`, in order; up to `ahead` wait to be used.

    The thread ends with the source, or when the iterator is closed. An error of either reaches the caller at
    the item that it concerns.
    """
    ready: queue.Queue[object] = queue.Queue(ahead)
    closed = threading.Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source:
                if not put(prepare(item)):
                    return
            put(_END)
        except BaseException as error:  # raised where the item is awaited
            put(_Failed(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


class _Failed:
    """An error in the place of an item."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
