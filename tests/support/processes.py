"""Starts a few processes that know each other, quickly: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

# Four imports of these would take half a minute on two cores.
_IMPORTED = ["torch", "torch._dynamo", "transformers", "peft", "accelerate", "domainclip.pipelines.finetune"]
_IMPORTED += ["domainclip.pipelines.evaluate", "domainclip.cli.app", "pytest"]  # by the modules of the tests
FORKING = processes.get_context("forkserver")
FORKING.set_forkserver_preload(_IMPORTED)


def started(world: int, folder: Path, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work(*given)` returns on each of so many processes, in order of rank; its module is importable."""
    # The one they are forked from may have been started by another test, in another environment.
    about = (world, str(folder), dict(os.environ), work, given)
    processes.start_processes(_begin, about, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]


def forked(work: Callable[..., Any], *given: Any) -> Any:
    """One process under way, which does `work(*given)` and knows no other."""
    process = FORKING.Process(target=_alone, args=(dict(os.environ), work, given))
    process.start()
    return process


@contextmanager
def launched(world: int, folder: Path, *arguments: str) -> Iterator[list[Any]]:
    """The processes of `domainclip ARGUMENTS` under way, as its launcher starts them.

    Their reports, and what they print as RANK.out and RANK.err, are in `folder`, whose modules they can import.
    tests/system/test_launch.py has those of the launcher itself, each of which imports everything again.
    """
    # Its port is known before the processes are there, as with torch's launcher.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = dict(os.environ) | {
        "DOMAINCLIP_LAUNCH_FOLDER": str(folder),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "ACCELERATE_USE_CPU": "true",
    }
    about = (world, environment, folder, arguments)
    found = [FORKING.Process(target=_command, args=(rank, *about)) for rank in range(world)]
    for process in found:
        process.start()
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.join()


def _command(
    rank: int, world: int, environment: dict[str, str], folder: Path, arguments: Sequence[str]
) -> None:
    from domainclip.cli import app

    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update(environment | {name: str(value) for name, value in numbers.items()})
    for stream, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{suffix}", os.O_WRONLY | os.O_CREAT), stream)
    sys.path.insert(0, str(folder))
    try:
        app.main(list(arguments))
    except Exception:  # as the interpreter does; a forked process prints another traceback
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.exit(1)


def _alone(environment: dict[str, str], work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    work(*given)


def finetuned(recipe: Path, folder: Path, *changes: str, resume: bool = False) -> None:
    """A whole run by two processes; tests/system/test_launch.py has those that the command line starts."""
    meeting = folder.with_name(f"{folder.name} processes")
    meeting.mkdir()
    started(2, meeting, _finetune, recipe, folder, changes, resume)
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


def _finetune(file: Path, folder: Path, changes: tuple[str, ...], resume: bool) -> None:
    from domainclip.config import loading
    from domainclip.pipelines import finetune
    from domainclip.training.run_context import RunOptions

    finetune.finetune(
        loading.load_recipe(str(file), changes), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _begin(
    rank: int,
    world: int,
    folder: str,
    environment: dict[str, str],
    work: Callable[..., Any],
    given: tuple[Any, ...],
) -> None:
    import torch.distributed as dist
    from accelerate import Accelerator

    from domainclip.distributed import collectives

    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update(
        environment | {name: str(value) for name, value in numbers.items()},
        ACCELERATE_USE_CPU="true",
        MASTER_ADDR="-",
        MASTER_PORT="0",
    )
    # They meet at a file: a port that was free may be taken by the time it is used.
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    accelerator = Accelerator(cpu=True)
    torch.save(work(*given), Path(folder, f"rank{rank}.pt"))
    collectives.wait_for_all()
    accelerator.end_training()
