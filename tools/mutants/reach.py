"""Which lines of a module each test runs, and how much of the processor each test takes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

_MAX_SECONDS = 1.0  # of a test, traced


@dataclass(frozen=True)
class Reach:
    """The lines and the processor seconds of the tests of a module."""

    lines: dict[str, set[int]]  # by test
    seconds: dict[str, float]  # by test

    def tests_of(self, lines: range) -> list[str]:
        """The tests that run one of these lines, the quickest first."""
        return self.by_time(test for test, ran in self.lines.items() if not ran.isdisjoint(lines))

    def by_time(self, tests: Iterable[str]) -> list[str]:
        """Without simulations and whole runs: a wrong value should fail where it is compared."""
        quick = [test for test in tests if self.seconds[test] <= _MAX_SECONDS]
        return sorted(quick, key=lambda test: self.seconds[test])


class Recorder:
    """Traces one file while tests run."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.current: set[int] = set()
        self.lines: dict[str, set[int]] = {}
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)

    @contextlib.contextmanager
    def test(self, name: str) -> Iterator[None]:
        self.current, start = self.lines.setdefault(name, set()), _processor_seconds()
        yield
        self.seconds[name] = _processor_seconds() - start

    def reach(self) -> Reach:
        return Reach(self.lines, self.seconds)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self.file else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.current.add(frame.f_lineno)
        return self._line


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])
