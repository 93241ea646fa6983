"""Launcher: runs a command on several processes with Accelerate, and reports a failure once."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from domainclip.distributed import heartbeat
from domainclip.distributed.failures import LaunchFailed, first_failure, stopped_by_signal
from domainclip.distributed.nodes import Nodes
from domainclip.errors import STOP_SIGNALS, DomainclipError, ExitCode, RecipeError

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Under Accelerate's own FSDP, DeepSpeed and Megatron, gradient caching and checkpoints would be silently
# wrong: quarter gradients, no weights saved.
_ENGINES = ("NO", "MULTI_GPU", "MULTI_CPU")
_SHUTDOWN_SECONDS = "300"  # that the processes have after a signal: a step and a save take time


def is_launched() -> bool:
    """Return whether another process started this one; a single process has no WORLD_SIZE."""
    return "WORLD_SIZE" in os.environ or heartbeat.FOLDER_VARIABLE in os.environ


def launch(
    arguments: list[str], processes: int | None, config: Path | None, nodes: Nodes | None = None
) -> None:
    """Run `domainclip ARGUMENTS` on several processes of this machine; return when all are done.

    With `nodes`, they train together with those that the same command starts on the other machines.

    Raises: RecipeError for an impossible number or file; LaunchFailed with the failure of the first process
    that stopped; Interrupted after a signal.
    """
    if processes is not None and processes < 1:
        raise RecipeError(f"--processes: at least 1, not {processes}")
    if nodes is not None and config is not None:
        raise RecipeError("--nodes: --accelerate-config names the machines already: use one of them")
    _check_config(config)
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The agent would print its own account of a failure, with a traceback that is not the user's.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    if config is None and not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    _forward_signals()
    options = launch_command_parser().parse_args(
        [*_options(processes, config, nodes), "-m", "domainclip", *arguments]
    )
    with tempfile.TemporaryDirectory(prefix="domainclip-") as name:
        folder = Path(name)
        os.environ[heartbeat.FOLDER_VARIABLE] = name
        try:
            launch_command(options)
        except ChildFailedError as error:
            in_time = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
            exit_codes = {rank: failure.exitcode for rank, failure in in_time}
            raise _with_hint(first_failure(folder, exit_codes), nodes) from None
        except subprocess.CalledProcessError as error:  # a single process, which Accelerate starts otherwise
            raise first_failure(folder, {0: error.returncode}) from None
        except SignalException as error:
            raise stopped_by_signal(folder, int(error.sigval)) from None
        except (ConnectionError, torch.distributed.DistError) as error:
            raise _no_meeting(error, nodes) from None
        finally:
            del os.environ[heartbeat.FOLDER_VARIABLE]  # the launcher itself reports to the user


def _check_config(config: Path | None) -> None:
    """Raises: RecipeError for a file that is missing, not of `accelerate config`, or of another engine."""
    if config is None:
        return
    if not config.is_file():
        raise RecipeError(f"--accelerate-config: {config} does not exist; make one with `accelerate config`")
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        loaded = load_config_from_file(str(config))
    except Exception as error:  # whatever a YAML reader and a dozen of keys may raise
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"--accelerate-config: {config} cannot be read: {reason}; make one with `accelerate config`"
        ) from None
    engine = loaded.distributed_type
    check_engine(str(getattr(engine, "value", engine)), "--accelerate-config")


def check_engine(engine: str, source: str = "accelerate") -> None:
    """Check the distributed type that `source` sets.

    Raises: RecipeError for one other than data-parallel processes.
    """
    if engine not in _ENGINES:
        raise RecipeError(
            f"{source}: distributed_type {engine} is not supported: use {', '.join(_ENGINES[:-1])} or "
            f"{_ENGINES[-1]}, and train.fsdp=true to shard weights and moments over the processes"
        )


def _forward_signals() -> None:
    """Configure the signals that torch's launcher passes on, and how long it waits before it kills."""
    # A signal that is ignored, as under nohup, stays so: the processes would ignore it too, and be killed.
    forwarded = (*STOP_SIGNALS, signal.SIGQUIT)
    names = [number.name for number in forwarded if signal.getsignal(number) is not signal.SIG_IGN]
    os.environ["PET_SIGNALS_TO_HANDLE"] = ",".join(names)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SHUTDOWN_SECONDS)


def _with_hint(failure: LaunchFailed, nodes: Nodes | None) -> LaunchFailed:
    """Name where the cause is printed, when only processes of other machines can have it."""
    if nodes is None or failure.code != ExitCode.LOST:
        return failure
    return LaunchFailed(f"{failure}; the output on the other machines may name the cause", ExitCode.LOST)


def _no_meeting(error: Exception, nodes: Nodes | None) -> DomainclipError:
    """Return the error for processes that could not meet at their address."""
    if nodes is None:
        return LaunchFailed(f"the processes cannot reach each other: {error}", ExitCode.LOST)
    if isinstance(error, ConnectionError):
        return RecipeError(
            f"--master: port {nodes.port} is in use on this machine: name a free one, on all machines"
        )
    return LaunchFailed(
        f"--nodes: not all {nodes.count} machines came to {nodes.host}:{nodes.port}: start the command on "
        "each, with its --node-rank; check that the port is open between them",
        ExitCode.LOST,
    )


def _options(processes: int | None, config: Path | None, nodes: Nodes | None = None) -> list[str]:
    if config is not None:
        number = [] if processes is None else ["--num_processes", str(processes)]
        return ["--config_file", str(config), *number]
    machines = ["--num_machines", "1", "--main_process_port", "0"] if nodes is None else nodes.arguments()
    total = (processes or 1) * (1 if nodes is None else nodes.count)
    # With --cpu accelerate would start one process, whatever the number is.
    return [
        *("--multi_gpu", "--num_processes", str(total), *machines),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    ]


def set_up_process() -> None:
    """Tie a process that was launched to its launcher: it ends with it, and only the first process logs."""
    if heartbeat.FOLDER_VARIABLE not in os.environ:
        return
    if sys.platform == "linux":  # a launcher that is killed cannot stop its processes
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("domainclip").setLevel(logging.ERROR)


def explain_loss(error: BaseException) -> str | None:
    """Return the message for an error that only another process's end, or silence, causes; else None."""
    return heartbeat.explain_timeout(error) if is_launched() else None
