"""One training run: its folder, its devices, and its progress lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from domainclip.distributed import collectives
from domainclip.training.monitoring.trackers import Trackers


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run that are not in its recipe."""

    folder: Path | None = None  # None: the next free one, runs/NAME-N
    resume: bool = False  # continue from the newest checkpoint in the folder
    quiet: bool = False  # no progress
    command: str = ""  # as typed, without what must not be public; for the report
    address: str = ""  # of a run folder in an object store, of which `folder` is the copy
    after_save: Callable[[], None] | None = None  # called after each checkpoint, in the thread that wrote it
    at_end: Callable[[], None] | None = None  # called when the run ends, on the first process


@dataclass(frozen=True)
class RunContext:
    """A run that has been opened: its folder is chosen, its processes have met."""

    folder: Path
    accelerator: Accelerator
    options: RunOptions
    started: float  # on the monotonic clock
    trackers: Trackers

    @property
    def quiet(self) -> bool:
        """Whether this process prints no progress."""
        return self.options.quiet or collectives.rank() > 0

    def say(self, *lines: str) -> None:
        """Print progress lines on standard error: on the first process, unless the run is quiet."""
        for line in () if self.quiet else lines:
            print(line, file=sys.stderr, flush=True)

    def warn(self, *warnings: str) -> None:
        """Print warnings, a line each."""
        for warning in warnings:
            self.say(f"warning: {warning}")
