"""A function in a forked process, with its output and a limit of time."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NoReturn


@dataclass(frozen=True)
class Fork:
    """What a forked process left."""

    code: int  # its exit status; 124 where it did not end in time
    output: str


def in_fork(child: Callable[[], int], seconds: int | None = None) -> Fork:
    """Run a function in a new process group; what it starts ends with it.

    With `seconds` of the processor it is killed after them, or after ten times as long on the clock.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(child, output.fileno(), seconds)
        code = _wait(pid, inf if seconds is None else time.monotonic() + 10 * seconds)
        output.seek(0)
        return Fork(code, output.read().decode("utf-8", "replace"))


def _run_and_exit(child: Callable[[], int], output: int, seconds: int | None) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a shell
    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for stream in (1, 2):
        os.dup2(output, stream)
    code = 70
    try:
        code = int(child())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, end: float) -> int:
    pause = 0.002
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.05, 2 * pause)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124
