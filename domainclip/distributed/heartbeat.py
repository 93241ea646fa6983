"""Where each process of a run is, so that one that stops answering can be named, with its step and its task.

Several processes of one machine, started by `domainclip --processes`, keep a small file each in a folder of
their launcher's; a process that is stopped or killed has left there what it did last. One that waits in vain
says so itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from domainclip.config import durations

NOTES = "DOMAINCLIP_LAST_WORDS"  # the folder, for the processes that were started
NO_ANSWER = "another process did not answer"
_WIDTH = 240  # bytes of a file, always: a reader never sees a half of it


@dataclass(frozen=True)
class ProcessState:
    """Where one process is."""

    step: int = 0  # of the training, 0 before it
    task: str = "starting"
    waiting_for: str = ""  # for what all processes must bring, or nothing

    def text(self) -> str:
        """`at step 12, reading data`."""
        where = f"at step {self.step}, " if self.step else ""
        return where + (f"waiting for {self.waiting_for}" if self.waiting_for else self.task)


_here = ProcessState()
_file: int | None = None
_limit = "30m"


def update(doing: str, step: int | None = None) -> None:
    """Notes what this process does from now on, and in which step of the training."""
    _move(replace(_here, task=doing, step=_here.step if step is None else step))


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """While this process cannot go on without the others."""
    before = _here
    _move(replace(before, waiting_for=what))
    yield
    _move(before)  # not after an error: it is told where this process stood


def set_timeout(limit: str) -> None:
    """How long a process waits for another, as the user said it."""
    global _limit
    _limit = limit


def limit() -> int:
    """The same in seconds."""
    return durations.seconds(_limit)


def explain_timeout(error: BaseException) -> str | None:
    """What to say when an error means that another process stopped answering, or is gone; else None."""
    text = str(error)
    if not isinstance(error, RuntimeError):
        return None
    if any(part in text for part in ("Timed out waiting", "wait timeout", "Timeout(ms)=")):
        return f"{_here.text()}: {NO_ANSWER} for {_limit}"
    if any(part in text for part in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")):
        return f"{_here.text()}: another process is gone"
    return None


def read_states(folder: Path) -> dict[int, ProcessState]:
    """Where each process was last."""
    found = {}
    for file in folder.glob("*.at"):
        try:
            found[int(file.stem)] = ProcessState(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # killed before it wrote for the first time
            continue
    return found


def _move(place: ProcessState) -> None:
    global _here, _file
    _here = place
    folder = os.environ.get(NOTES)
    if folder is None or "RANK" not in os.environ:
        return
    if _file is None:
        _file = os.open(Path(folder, f"{os.environ['RANK']}.at"), os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(_file, json.dumps(asdict(place)).ljust(_WIDTH).encode(), 0)
