"""Starts a few processes that know each other, quickly: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes

# Four imports of these would take half a minute on two cores.
_IMPORTED = ["torch", "torch._dynamo", "transformers", "peft", "accelerate", "domainclip.training.loop"]
_FORKING = processes.get_context("forkserver")
_FORKING.set_forkserver_preload(_IMPORTED)


def started(world: int, folder: Path, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work(*given)` returns on each of so many processes, in order of rank; its module is importable."""
    # The one they are forked from may have been started by another test, in another environment.
    about = (world, str(folder), dict(os.environ), work, given)
    processes.start_processes(_begin, about, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]


def forked(work: Callable[..., Any], *given: Any) -> Any:
    """One process under way, which does `work(*given)` and knows no other."""
    process = _FORKING.Process(target=_alone, args=(dict(os.environ), work, given))
    process.start()
    return process


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
