"""Starts a verb on several processes of this machine through Accelerate, and answers for them.

The processes do not speak of their faults: each leaves its last words in a folder, and the launcher says the
first of them, once, with the number of the process when only one had it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from domainclip import errors
from domainclip.distributed import heartbeat
from domainclip.distributed.heartbeat import NOTES as _NOTES
from domainclip.errors import DomainclipError, ExitCode, RecipeError

_PR_SET_PDEATHSIG = 1  # prctl(2)
_TO_SAVE = "300"  # seconds that the processes have after a signal


class LaunchFailed(DomainclipError):
    """What stopped the processes, with the exit code of the first that stopped."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[assignment]


def is_launched() -> bool:
    """Whether this process was started by another already; of one alone, nobody says how many there are."""
    return "WORLD_SIZE" in os.environ or _NOTES in os.environ


def launch(arguments: list[str], processes: int | None, config: Path | None) -> None:
    """Runs `domainclip ARGUMENTS` on several processes; returns when all are done.

    Raises: RecipeError for a number or file that cannot be; Failed with what the first process that stopped
    had to say.
    """
    if processes is not None and processes < 1:
        raise RecipeError(f"--processes: at least 1, not {processes}")
    if config is not None and not config.is_file():
        raise RecipeError(f"--accelerate-config: {config} does not exist; make one with `accelerate config`")
    _refuse_unreadable(config)
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The agent would print its own account of a failure, with a traceback that is not the user's.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    if config is None and not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    _heed_signals()
    options = launch_command_parser().parse_args(
        [*_options(processes, config), "-m", "domainclip", *arguments]
    )
    with tempfile.TemporaryDirectory(prefix="domainclip-") as notes:
        os.environ[_NOTES] = notes
        try:
            launch_command(options)
        except ChildFailedError as error:
            raise _first(Path(notes), {rank: one.exitcode for rank, one in error.failures.items()}) from None
        except subprocess.CalledProcessError as error:  # the only one, which Accelerate starts in another way
            raise _first(Path(notes), {0: error.returncode}) from None
        except SignalException as error:
            raise _stopped(Path(notes), int(error.sigval)) from None
        finally:
            del os.environ[_NOTES]  # the launcher speaks to the user


def _refuse_unreadable(config: Path | None) -> None:
    """Raises: RecipeError for a file that `accelerate config` did not write."""
    if config is None:
        return
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        load_config_from_file(str(config))
    except Exception as error:  # whatever a YAML reader and a dozen of keys may raise
        why = " ".join(str(error).split())
        raise RecipeError(
            f"--accelerate-config: {config} cannot be read: {why}; make one with `accelerate config`"
        ) from None


def _heed_signals() -> None:
    """What torch's launcher passes on, and how long it waits before it kills: a step and a save take time."""
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")  # SLURM warns with the last one
    # What is ignored, as under nohup, stays so: the processes would ignore it too, and be killed for it.
    heeded = [name for name in names if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]
    os.environ["PET_SIGNALS_TO_HANDLE"] = ",".join(heeded)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _TO_SAVE)


def _options(processes: int | None, config: Path | None) -> list[str]:
    if config is not None:
        number = [] if processes is None else ["--num_processes", str(processes)]
        return ["--config_file", str(config), *number]
    # With --cpu accelerate would start one process, whatever the number says.
    return [
        *("--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
    ]


def begin() -> None:
    """To be called by a process that was started: it ends with its launcher, and only the first one logs."""
    if _NOTES not in os.environ:
        return
    if sys.platform == "linux":  # a launcher that is killed at once cannot stop its processes
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("domainclip").setLevel(logging.ERROR)


def leave(message: str, code: int, echo: bool = False) -> bool:
    """Leaves the last words of this process; False when nobody waits for them.

    An `echo` tells only that another process has ended.
    """
    folder = os.environ.get(_NOTES)
    if folder is None or not is_launched():
        return False
    rank = os.environ.get("RANK", "0")
    note = {"rank": int(rank), "at": time.time_ns(), "message": message, "code": int(code), "echo": echo}
    Path(folder, f"{rank}.json").write_text(json.dumps(note), encoding="utf-8")
    return True


def lost(error: BaseException) -> str | None:
    """What to say of an error that is only the echo of another process's end, or silence; else None."""
    return heartbeat.explain_timeout(error) if is_launched() else None


def _stopped(notes: Path, number: int) -> DomainclipError:
    """What to say after a signal: the processes' own word, or where they were when none could leave one."""
    if any(not note["echo"] for note in _left(notes)):
        return _first(notes, {0: -number})
    where = heartbeat.read_states(notes).get(0, heartbeat.ProcessState()).text()
    said = f"stopped by {signal.Signals(number).name}, {where}: what was saved before stays"
    return errors.interrupted(number, said)


def _left(notes: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in notes.glob("*.json")]


def _first(notes: Path, codes: dict[int, int]) -> LaunchFailed:
    """What to say, from the last words and the exit codes by process."""
    left = _left(notes)
    found = [note for note in left if not note["echo"]]
    if not found:
        return _silent({note["rank"]: note["message"] for note in left}, heartbeat.read_states(notes), codes)
    first = min(found, key=lambda note: int(note["at"]))
    shared = len({note["message"] for note in found}) == 1 and len(found) > 1
    said = (
        first["message"] if shared or first["rank"] == 0 else f"process {first['rank']}: {first['message']}"
    )
    return LaunchFailed(said, first["code"])


def _silent(
    echoes: dict[int, str], places: dict[int, heartbeat.ProcessState], codes: dict[int, int]
) -> LaunchFailed:
    """Names the process that the others lost: one that ended without a word, else one that did not answer."""
    # The launcher ends the others with SIGTERM: whoever ended otherwise was first.
    ended = sorted(codes.keys() - echoes.keys(), key=lambda rank: (codes[rank] == -signal.SIGTERM, rank))
    waited = {rank: said for rank, said in echoes.items() if heartbeat.NO_ANSWER in said}
    if ended and not waited:
        code, where = codes[ended[0]], places.get(ended[0], heartbeat.ProcessState()).text()
        # A negative code is the signal that ended it: 9 is what a machine without memory sends.
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        said = f"process {ended[0]} ended without a word ({why}), {where}; see its output above"
        return LaunchFailed(said, ExitCode.LOST if code < 0 else ExitCode.BUG)
    witness, said = min((waited or echoes).items())
    # All wait for the one that does not. One that goes on later finds the others gone, and says so.
    still = sorted(
        places.keys() - (waited or echoes).keys(),
        key=lambda rank: (rank in echoes, bool(places[rank].waiting_for), places[rank].step, rank),
    )
    if not still:
        return LaunchFailed(f"process {witness}, {said}; continue with --resume", ExitCode.LOST)
    lost = f"process {still[0]} stopped answering, {places[still[0]].text()}; process {witness}, {said}"
    way_out = "look at its machine, then continue with --resume; if it was only slow, raise train.timeout"
    return LaunchFailed(f"{lost}: {way_out}", ExitCode.LOST)
