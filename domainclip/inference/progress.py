"""Progress of a count: one live line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS = 5.0  # between plain lines


class CountProgress:
    """Counts images on standard error; short work prints nothing where no person watches."""

    def __init__(self, total: int, word: str, quiet: bool = False) -> None:
        self.total, self.word, self.quiet, self.done = total, word, quiet, 0
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self.started = self.last_line = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(24), console=self.console, transient=True
        )

    def __enter__(self) -> CountProgress:
        if self.live:
            self.bar.start()
            self.task = self.bar.add_task(self.line(), total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def advance(self, count: int) -> None:
        """Count further images."""
        self.done += count
        if self.live:
            self.bar.update(self.task, completed=self.done, description=self.line())
        elif not self.quiet and time.monotonic() - self.last_line >= _SECONDS:
            self.last_line = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Return for example `320/8000 images encoded  41.0 a second  3:07 left`."""
        rate = self.done / max(1e-9, time.monotonic() - self.started)
        text = f"{self.done}/{self.total} {self.word}"
        if not self.done:
            return text
        left = int((self.total - self.done) / rate)
        return f"{text}  {rate:.1f} a second  {left // 60}:{left % 60:02d} left"
