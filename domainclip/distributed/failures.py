"""How the processes of one command ended: each leaves a report, and the launcher makes one message of them.

The message is the first report, with the rank of its process when only that one failed. A process that
another one's end brought down leaves an echo, which counts only when no process reports a failure of its own.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from domainclip import errors
from domainclip.distributed import heartbeat
from domainclip.distributed.heartbeat import ProcessState
from domainclip.errors import DomainclipError, ExitCode


class LaunchFailed(DomainclipError):
    """The failure that stopped the processes, with the exit code of the first that stopped."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[assignment]


@dataclass(frozen=True)
class FailureReport:
    """The report of a process that ended with an error."""

    rank: int
    at: int  # nanoseconds since 1970
    message: str
    code: int  # exit code
    echo: bool  # the error only means that another process has ended, or hangs


def report_failure(message: str, code: int, echo: bool = False) -> bool:
    """Write the report of this process for its launcher; return False if it has none."""
    folder = os.environ.get(heartbeat.FOLDER_VARIABLE)
    if folder is None:
        return False
    rank = int(os.environ.get("RANK", "0"))
    report = FailureReport(rank, time.time_ns(), message, int(code), echo)
    Path(folder, f"{rank}.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
    return True


def first_failure(folder: Path, exit_codes: Mapping[int, int]) -> LaunchFailed:
    """Return the error that the launcher raises, from the reports and the exit codes by rank.

    `exit_codes` is in the order in which the processes ended.
    """
    reports = _read_reports(folder)
    failures = [report for report in reports if not report.echo]
    if not failures:
        echoes = {report.rank: report.message for report in reports}
        return lost_process(echoes, heartbeat.read_states(folder), exit_codes)
    first = min(failures, key=lambda report: report.at)
    shared = len({report.message for report in failures}) == 1 and len(failures) > 1
    unnamed = shared or first.rank == 0
    return LaunchFailed(first.message if unnamed else f"process {first.rank}: {first.message}", first.code)


def stopped_by_signal(folder: Path, number: int) -> DomainclipError:
    """Return the error after a signal to the launcher: the processes' report, or where they were stopped."""
    if any(not report.echo for report in _read_reports(folder)):
        return first_failure(folder, {0: -number})
    where = heartbeat.read_states(folder).get(0, ProcessState()).text()
    return errors.interrupted(
        number, f"stopped by {signal.Signals(number).name}, {where}: earlier checkpoints are unchanged"
    )


def lost_process(
    echoes: Mapping[int, str], states: Mapping[int, ProcessState], exit_codes: Mapping[int, int]
) -> LaunchFailed:
    """Name the process that the others lost: one that ended without a report, else one that hangs.

    All by rank: messages of the echoes, last states, exit codes in the order in which the processes ended.
    """
    # The launcher ends the other processes with SIGTERM, so one that ended otherwise was the first. One that
    # waits for a GPU does not notice SIGTERM and is killed with SIGKILL, later than the first.
    silent = [rank for rank in exit_codes if rank not in echoes]
    ended = sorted(silent, key=lambda rank: exit_codes[rank] == -signal.SIGTERM)
    timed_out = {rank: message for rank, message in echoes.items() if heartbeat.NO_ANSWER in message}
    if ended and not timed_out:
        return _ended_without_report(ended[0], exit_codes[ended[0]], states.get(ended[0], ProcessState()))
    waiting = timed_out or echoes
    rank, message = min(waiting.items())
    # All wait for the process that does not wait. One that goes on later finds the others gone.
    hanging = sorted(
        states.keys() - waiting.keys(),
        key=lambda other: (other in echoes, bool(states[other].waiting_for), states[other].step, other),
    )
    if not hanging:
        return LaunchFailed(f"process {rank}, {message}; continue with --resume", ExitCode.LOST)
    return LaunchFailed(
        f"process {hanging[0]} stopped answering, {states[hanging[0]].text()}; process {rank}, {message}: "
        "check its machine, then continue with --resume; if it was only slow, raise train.timeout",
        ExitCode.LOST,
    )


def _ended_without_report(rank: int, exit_code: int, state: ProcessState) -> LaunchFailed:
    # A negative code is the signal that ended the process: 9 is sent by a machine that is out of memory.
    cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return LaunchFailed(
        f"process {rank} ended without an error message ({cause}), {state.text()}; see its output above",
        ExitCode.LOST if exit_code < 0 else ExitCode.BUG,
    )


def _read_reports(folder: Path) -> list[FailureReport]:
    files = folder.glob("*.json")
    return [FailureReport(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
