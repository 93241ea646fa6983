"""Heartbeat of every process: its step and current task, so that a hung process can be reported by rank.

The processes that `domainclip --processes` starts on one machine each write it to a small file in a folder of
their launcher; of a process that is stopped or killed, the file holds the last state. A process that waits in
vain reports its own state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from domainclip.config import durations

FOLDER_VARIABLE = "DOMAINCLIP_LAUNCH_FOLDER"  # environment variable with the folder, for started processes
NO_ANSWER = "another process did not answer"
# Parts of the messages of gloo, then of NCCL.
_SILENT = (
    "Timed out waiting",
    "wait timeout",
    "Timeout(ms)=",
    "Watchdog caught collective operation",
)
_GONE = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe"),
    *("remote process exited", "NCCL communicator was aborted", "ncclRemoteError"),
)
_FILE_BYTES = 240  # a state is always as long, so that a reader never sees half of one


@dataclass(frozen=True)
class ProcessState:
    """The step and the task of one process."""

    step: int = 0  # of the training; 0 before it
    task: str = "starting"
    waiting_for: str = ""  # contribution of all processes that this one waits for; empty if it does not

    def text(self) -> str:
        """Return for example `at step 12, reading data`."""
        where = f"at step {self.step}, " if self.step else ""
        return where + (f"waiting for {self.waiting_for}" if self.waiting_for else self.task)


_state = ProcessState()
_state_file: int | None = None  # descriptor
_timeout = "30m"


def update(task: str, step: int | None = None) -> None:
    """Set the task of this process and, if given, its training step."""
    _set_state(replace(_state, task=task, step=_state.step if step is None else step))


@contextmanager
def waiting_for(contribution: str) -> Iterator[None]:
    """Mark this process as waiting for the other processes."""
    before = _state
    _set_state(replace(before, waiting_for=contribution))
    yield
    _set_state(before)  # not after an error, whose report names the state at the time


def set_timeout(timeout: str) -> None:
    """Set how long a process waits for another, as a duration such as `30m`."""
    global _timeout
    _timeout = timeout


def timeout_seconds() -> int:
    """Return how many seconds a process waits for another."""
    return durations.seconds(_timeout)


def explain_timeout(error: BaseException) -> str | None:
    """Return the message for an error that means that another process hangs or has ended; else None."""
    text = str(error)
    if not isinstance(error, RuntimeError):
        return None
    if any(sign in text for sign in _SILENT):
        return f"{_state.text()}: {NO_ANSWER} for {_timeout}"
    if any(sign in text for sign in _GONE):
        return f"{_state.text()}: another process is gone"
    return None


def read_states(folder: Path) -> dict[int, ProcessState]:
    """Return the last state of each process, by rank."""
    states = {}
    for file in folder.glob("*.at"):
        try:
            states[int(file.stem)] = ProcessState(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # the process was killed before it wrote for the first time
            continue
    return states


def _set_state(state: ProcessState) -> None:
    global _state, _state_file
    _state = state
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None or "RANK" not in os.environ:
        return
    if _state_file is None:
        _state_file = os.open(Path(folder, f"{os.environ['RANK']}.at"), os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(_state_file, json.dumps(asdict(state)).ljust(_FILE_BYTES).encode(), 0)
