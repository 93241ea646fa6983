"""When a run should end before its last step: a signal, or the time that it was given.

Handlers only note; the loop looks at a step's end, agrees with the other processes, saves and leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from types import FrameType

from domainclip.config.durations import seconds
from domainclip.errors import STOP_SIGNALS

_TIME_UP = 1  # stands among signal numbers for the time limit: 1 is a hang-up, which is not handled


class InterruptHandler:
    """Notes what asks the run to end; a second signal ends it at once."""

    def __init__(self, after: str | None, began: float | None = None) -> None:
        """`after` counts from `began`, a `time.monotonic()`, else from now."""
        start = time.monotonic() if began is None else began
        self._deadline = None if after is None else start + seconds(after)
        self._received = 0

    def requested(self) -> int:
        """0, or what asks this process to stop."""
        if not self._received and self._deadline is not None and time.monotonic() >= self._deadline:
            self._received = _TIME_UP
        return self._received

    def __enter__(self) -> InterruptHandler:
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def requeue() -> str | None:
    """Puts this SLURM job back into its queue; what was done, or None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return (
            f"could not put SLURM job {job} back into its queue ({type(error).__name__}): requeue it by hand"
        )
    return f"SLURM job {job} stands in its queue again"
