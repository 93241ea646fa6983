"""The end of a run before its last step: a signal, or the time limit.

Handlers only note the signal; after each step the loop agrees with the other processes, saves and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from types import FrameType

from domainclip.config.durations import seconds
from domainclip.distributed.launch import is_launched
from domainclip.errors import STOP_SIGNALS

_TIME_UP = 10_000  # stands among signal numbers for the time limit
_ECHO_SECONDS = 5.0  # after a signal in which the same one, through the launcher, is no second request


class InterruptHandler:
    """Notes the signal or time limit at which the run has to end; a second signal ends it at once."""

    def __init__(self, time_limit: str | None, started: float | None = None) -> None:
        """`time_limit` counts from `started`, a `time.monotonic()`, else from now."""
        start = time.monotonic() if started is None else started
        self._deadline = None if time_limit is None else start + seconds(time_limit)
        self._received = 0
        self._since = 0.0  # when the signal was received

    def requested(self) -> int:
        """Return the number of the signal that stops this process, or 0."""
        if not self._received and self._deadline is not None and time.monotonic() >= self._deadline:
            self._received = _TIME_UP
        return self._received

    def __enter__(self) -> InterruptHandler:
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]  # false once it is closed
        # An ignored SIGHUP, as under nohup, stays so; an interrupt saves in the background of a script too.
        hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        handled = [number for number in STOP_SIGNALS if hangup or number != signal.SIGHUP]
        self._handlers = {number: signal.signal(number, self._note) for number in handled}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received, self._since = number, time.monotonic()
        signal.signal(number, self._note_again if is_launched() else signal.SIG_DFL)
        if number == signal.SIGHUP:
            self._leave_terminal()

    def _note_again(self, number: int, frame: FrameType | None) -> None:
        # SLURM signals every process of a job, and the launcher passes on to its processes what it receives.
        if time.monotonic() - self._since > _ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _leave_terminal(self) -> None:
        # What is still printed is discarded: on a terminal that is gone it would be an error before the save.
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(nothing, stream)
        os.close(nothing)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def requeue() -> str | None:
    """Put this SLURM job back into its queue; return a sentence on the outcome, or None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return (
            f"could not put SLURM job {job} back into its queue ({type(error).__name__}): requeue it by hand"
        )
    return f"SLURM job {job} is in its queue again"
