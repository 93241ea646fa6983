"""Long phases of a command that print nothing by themselves: a line every now and then, also in a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from domainclip.distributed import heartbeat

FIRST_SECONDS = 10.0  # before the first line of a phase; then twice as long, up to …
_LONGEST_SECONDS = 60.0

_active: list[str] = []  # the phases of this process, each inside the one before
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Print no line from now on, as --quiet asks for."""
    global _quiet
    _quiet = quiet


@contextmanager
def phase(task: str) -> Iterator[None]:
    """Name what a function or a block does: after ten seconds on standard error, and in the heartbeat.

    Of phases inside each other the innermost is named; of several processes the first one prints.
    """
    ended = threading.Event()
    _active.append(task)
    heartbeat.update(task)
    threading.Thread(target=_announce, args=(task, len(_active), ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _active.pop()


def _announce(task: str, depth: int, ended: threading.Event) -> None:
    started, wait = time.monotonic(), FIRST_SECONDS
    while not ended.wait(wait):
        if len(_active) == depth and not _quiet and os.environ.get("RANK", "0") == "0":
            print(f"{task}: {time.monotonic() - started:.0f} s so far", file=sys.stderr, flush=True)
        wait = min(_LONGEST_SECONDS, 2 * wait)
