"""What must hold for every input, however wrong: a documented exit code, one clean line, nothing lost or leaked.

A room is one kind of input, as recipes or DICOM headers. It counts what happened to each input, and keeps the
shortest input of every distinct fault, so that one run shows all faults and not only the first.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import resource
import signal
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from domainclip.cli import app
from domainclip.errors import ExitCode

INPUTS = int(os.environ.get("DOMAINCLIP_FUZZ", "400"))  # of all rooms together
CANARY = "Pat1947Canary"  # planted in values: no line may show it
_LONGEST_LINE = 2000  # characters
_SLOW, _HANGS = 5.0, 30  # seconds of computing, seconds that pass
_MEMORY = 1500 * 2**20  # bytes that one input may add
# Python shows none of these by default, and `main` silences the first.
_UNSEEN_WARNINGS = (
    FutureWarning,
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
)

_NATIVE = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process


class Hang(BaseException):
    """Not an Exception: no reader may take it for a broken file."""


@dataclass
class Fault:
    """One way in which inputs fail, with the shortest input that does."""

    kind: str  # traceback, silent loss, leak …
    text: str
    given: str
    count: int = 1


@dataclass
class Room:
    """The counts of one kind of input."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)  # by exit code
    quarantined: int = 0  # items
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)

    def each(self, share: float, **strategies: Any) -> Callable[[Callable[..., None]], None]:
        """Call a function at once, with this share of all inputs, drawn in the same order in every run."""
        chosen = settings(
            max_examples=max(8, round(INPUTS * share)),
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # a fault does not raise: there is nothing to shrink
            suppress_health_check=list(HealthCheck),
        )
        return lambda function: chosen(given(**strategies)(function))()

    def observe(self, call: Callable[[], Any], given: Any, secret: str | None = CANARY) -> Any:
        """Run `call` under the program's own `main`; return its value, or None where it refused.

        `secret` is a text of the input that no line may show.
        """
        self.inputs += 1
        before, started = _peak_memory(), time.process_time()
        with _captured() as seen, _alarm():
            value, code, problem = _run_main(call)
        seconds, memory = time.process_time() - started, _peak_memory() - before
        if problem is not None:
            self.fault("traceback", _place(problem), given)
        elif code is None:
            self.accepted += 1
        else:
            self.refused[code] += 1
            self._check_refusal(code, seen.error.getvalue(), given)
        self._check_lines(seen.lines(), given, secret)
        for line in seen.of_libraries()[:1]:
            self.fault("line of a library", _beginning(line), given)
        if seconds > _SLOW:
            self.fault("slow", f"{seconds:.1f} s", given)
        if memory > _MEMORY:
            self.fault("memory", f"{memory / 2**20:.0f} MiB", given)
        return value

    def require(self, holds: bool, kind: str, text: str, given: Any) -> None:
        """Record a fault unless the condition holds."""
        if not holds:
            self.fault(kind, text, given)

    def fault(self, kind: str, text: str, given: Any) -> None:
        """Record a fault, with the shortest input of its kind."""
        shown = repr(given)
        fault = self.faults.setdefault((kind, text), Fault(kind, text, shown, 0))
        fault.count += 1
        fault.given = min(fault.given, shown, key=len)

    def check(self) -> None:
        """Raise AssertionError with every fault."""
        faults = [f"{f.kind} ({f.count}×): {f.text}\n    {_short(f.given)}" for f in self.faults.values()]
        assert not faults, f"{self.name}: {len(faults)} faults\n" + "\n".join(faults)

    def _check_refusal(self, code: int, text: str, given: Any) -> None:
        documented = [int(known) for known in ExitCode if known not in (ExitCode.DONE, ExitCode.BUG)]
        self.require(code in documented, "exit code", f"{code}: {text[:200]}", given)
        lines = text.removesuffix("\n").split("\n")
        self.require(len(lines) == 1, "not one line", _beginning(lines[0]), given)
        self.require(len(text.strip()) > len("domainclip: "), "no message", text, given)

    def _check_lines(self, lines: list[str], given: Any, secret: str | None) -> None:
        for line in lines:
            if len(line) > _LONGEST_LINE:
                self.fault("long line", _beginning(line), given)
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in line):
                self.fault("control characters", repr(_beginning(line)), given)
            if secret and secret in line:
                self.fault("leak", line[:300], given)


@dataclass
class _Seen:
    """Everything that would have stood on the terminal."""

    output: io.StringIO = field(default_factory=io.StringIO)
    error: io.StringIO = field(default_factory=io.StringIO)
    warned: list[warnings.WarningMessage] = field(default_factory=list)
    logged: list[logging.LogRecord] = field(default_factory=list)
    native: str = ""  # what libraries in C wrote past Python

    def lines(self) -> list[str]:
        """The lines, of warnings and logs too."""
        printed = [*self.output.getvalue().splitlines(), *self.error.getvalue().split("\n")]
        return [*printed, *self.of_libraries(), *(record.getMessage() for record in self.logged)]

    def of_libraries(self) -> list[str]:
        """The lines that no part of this program printed."""
        warned = [str(w.message) for w in self.warned if not issubclass(w.category, _UNSEEN_WARNINGS)]
        logged = [record.getMessage() for record in self.logged if not record.name.startswith("domainclip")]
        return [*(line for line in self.native.splitlines() if line), *warned, *logged]


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.emit = records.append  # type: ignore[method-assign]


@contextlib.contextmanager
def _captured() -> Iterator[_Seen]:
    seen = _Seen()
    collector = _Collector(seen.logged)
    logging.getLogger().addHandler(collector)
    try:
        with (
            _native_errors(seen),
            contextlib.redirect_stdout(seen.output),
            contextlib.redirect_stderr(seen.error),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            yield seen
            seen.warned = warned or []
    finally:
        logging.getLogger().removeHandler(collector)


@contextlib.contextmanager
def _native_errors(seen: _Seen) -> Iterator[None]:
    """Collect what is written to the file descriptor of errors."""
    before = os.dup(2)
    os.truncate(_NATIVE.fileno(), 0)
    os.lseek(_NATIVE.fileno(), 0, os.SEEK_SET)
    os.dup2(_NATIVE.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        seen.native = os.pread(_NATIVE.fileno(), 10_000, 0).decode("utf-8", "replace")


def _run_main(call: Callable[[], Any]) -> tuple[Any, int | None, BaseException | None]:
    """The value of the call, or the exit code of `main`, or the error that `main` lets through."""
    values: list[Any] = []
    command, app.app = app.app, lambda *_, **__: values.append(call())  # type: ignore[assignment]
    try:
        app.main([])
        return values[0], None, None
    except SystemExit as error:
        return None, int(error.code or 0), None
    except (Exception, Hang) as error:
        return None, None, error
    finally:
        app.app = command


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"no end after {_HANGS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """The error and the last line of the package before it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/domainclip/" in f.filename]
    at = f"{frames[-1].filename.rpartition('/domainclip/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} in {at}: {_beginning(str(error))}"


def _beginning(line: str) -> str:
    """The part of a line before the first value in it, so that equal faults are counted together."""
    return re.split(r"[\"'\[{]|got ", line)[0][:80]


def _short(given: str) -> str:
    return given if len(given) <= 1500 else f"{given[:1000]} … {given[-400:]}"


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
