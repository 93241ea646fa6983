"""Signals and walltime: noted, not obeyed in the middle of a step."""

from __future__ import annotations

import os
import pty
import signal
import time
from pathlib import Path

import pytest

from domainclip.errors import ExitCode, interrupted
from domainclip.training.checkpointing.interruption import InterruptHandler, requeue


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGUSR1, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.TERMINATED),
    ],
)
def test_a_signal_is_noted(number: signal.Signals, code: ExitCode) -> None:
    """Fault 7."""
    before = signal.getsignal(number)
    with InterruptHandler(None) as stopping:
        assert stopping.requested() == 0
        os.kill(os.getpid(), number)
        assert stopping.requested() == number
        assert signal.getsignal(number) == signal.SIG_DFL  # a second one ends the process
    assert signal.getsignal(number) == before
    assert interrupted(number, "stopped").code == code


def test_the_echo_of_the_launcher_is_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM signals the launcher and its processes, and the launcher passes on what it receives."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with InterruptHandler(None) as stopping:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)  # which would end the process
        assert stopping.requested() == signal.SIGUSR1
        ended: list[int] = []
        later = time.monotonic() + 60
        monkeypatch.setattr(time, "monotonic", lambda: later)
        monkeypatch.setattr(os, "kill", lambda process, number: ended.append(number))
        signal.raise_signal(signal.SIGUSR1)
        assert ended == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptHandler(None) as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopping.requested() == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_no_error() -> None:
    """The terminal hangs up; what is printed before the save goes nowhere, and the process goes on to it."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where these tests run under nohup
        with InterruptHandler(None) as stopping:
            os.write(1, b"ready")
            while not stopping.requested():
                time.sleep(0.01)
            os.write(1, b"saving")
            os._exit(7)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_time_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stopping = InterruptHandler("1h30m")
    now += 5399
    assert stopping.requested() == 0
    now += 1
    asked = stopping.requested()
    assert interrupted(asked, "time is up").code == ExitCode.TERMINATED


def test_the_time_counts_from_when_the_run_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stage, or one after a long preparation, gets what is left of it."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert InterruptHandler("10m", started=401.0).requested() == 0
    assert InterruptHandler("10m", started=400.0).requested() != 0


def test_requeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue() is None
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue() == (
        "could not put SLURM job 77 back into its queue (FileNotFoundError): requeue it by hand"
    )
    tool = tmp_path / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    tool.chmod(0o755)
    assert requeue() == "SLURM job 77 is in its queue again"
    assert (tmp_path / "said").read_text() == "requeue 77\n"


def test_a_queue_that_refuses_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = tmp_path / "scontrol"
    tool.write_text("#!/bin/sh\necho not allowed >&2\nexit 1\n")
    tool.chmod(0o755)
    assert requeue() == (
        "could not put SLURM job 77 back into its queue (CalledProcessError): requeue it by hand"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("number", "stays"), [(signal.SIGHUP, False), (signal.SIGTERM, True)])
def test_a_terminal_that_is_closed_is_written_to_no_more(number: signal.Signals, stays: bool) -> None:
    """Printing to it would be an error before the checkpoint is saved; other signals leave it open."""
    saved = [os.dup(stream) for stream in (1, 2)]
    terminal, end = os.openpty()
    try:
        for stream in (1, 2):
            os.dup2(end, stream)
        with InterruptHandler(None) as stopping:
            before = len(os.listdir("/proc/self/fd"))
            os.kill(os.getpid(), number)
            assert stopping.requested() == number
            is_terminal = [os.isatty(stream) for stream in (1, 2)]
            assert len(os.listdir("/proc/self/fd")) == before
    finally:
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
        for handle in (*saved, terminal, end):
            os.close(handle)
    assert is_terminal == [stays, stays]
