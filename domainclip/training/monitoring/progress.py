"""Progress of a training: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from math import log
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class ProgressDisplay:
    """Shows the loss, with that of guessing where it is known, the pairs per second, and the time left."""

    def __init__(
        self,
        steps: int,
        start: int,
        batch_size: int,
        quiet: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`weights` of the loss terms: of the contrastive term alone, guessing costs ln of the batch size."""
        self.steps, self.start, self.batch_size, self.quiet = steps, start, batch_size, quiet
        self.chance = f" (chance {log(batch_size):.2f})" if weights == {"contrastive": 1.0} else ""
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self.started = time.monotonic()
        self.last_line = self.started - 1e9
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(24), console=self.console, transient=True
        )

    def __enter__(self) -> ProgressDisplay:
        if self.live:
            self.bar.start()
            self.task = self.bar.add_task("…", total=self.steps, completed=self.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def rate(self, step: int) -> float:
        """Return the pairs per second since the start of this session."""
        return (step - self.start) * self.batch_size / max(1e-9, time.monotonic() - self.started)

    def show(self, step: int, record: dict[str, Any]) -> None:
        """Show a step; plain lines are printed every ten seconds and at the end."""
        if self.quiet:
            return
        text = self.line(step, record)
        if self.live:
            self.bar.update(self.task, completed=step, description=text)
        elif time.monotonic() - self.last_line >= 10 or step == self.steps:
            self.last_line = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def line(self, step: int, record: dict[str, Any]) -> str:
        """Return `step 40/80  loss 2.31 (chance 4.85)  scale 41.2  118 pairs/s  0:34 left`."""
        rate = self.rate(step)
        left = int((self.steps - step) * self.batch_size / rate) if rate > 0 else 0
        return (
            f"step {step}/{self.steps}  loss {record['loss']:.3f}{self.chance}  "
            f"scale {record['scale']:.1f}  {rate:.1f} pairs/s  {left // 60}:{left % 60:02d} left"
        )
