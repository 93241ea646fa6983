"""A run that is continued by another number of processes sees the same pairs in the same order.

Sums over processes are taken in another order, so the end is the same to rounding, not to the bit: in double
precision, to eleven digits. Sessions are forks, so that nothing is imported twice.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from domainclip.config import loading as loading_config
from domainclip.errors import DomainclipError
from domainclip.pipelines import base_model, finetune
from domainclip.training import stage_run
from domainclip.training.checkpointing import checkpoint
from domainclip.training.run_context import RunOptions

OPTIONS = [
    "evaluate.cache_embeddings=false",
    "train.save_every=1",
    "train.keep_checkpoints=9",
    "probes=[zero_shot]",
]


def _double() -> None:
    """The whole run in double precision; for processes that end with it."""
    plain = base_model.load_base_model
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    base_model.load_base_model = lambda *a, **k: plain(*a, **k).double()  # type: ignore[assignment]


def _process(file: Path, folder: Path, resume: bool, stop_at: int, rank: int, world: int, port: int) -> None:
    """One process of a session; never returns."""
    code = 1
    errors = os.open(
        folder.parent / f"{folder.name}-{world}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    )
    try:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        if world > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        _double()
        plain = stage_run.to_step_batch

        def bring(stage: Any, rows: Any, at: int, device: Any) -> Any:
            with (folder.parent / f"{folder.name}-shown-{rank}-{world}.jsonl").open("a") as stream:
                stream.write(json.dumps([at, rows.ids]) + "\n")
            if at + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return plain(stage, rows, at, device)

        stage_run.to_step_batch = bring  # type: ignore[assignment]
        finetune.finetune(
            loading_config.load_recipe(str(file), OPTIONS),
            RunOptions(folder=folder, resume=resume, quiet=True),
        )
        code = 0
    except DomainclipError as error:
        os.write(errors, f"{error}\n".encode())
        code = int(error.code)
    except BaseException:
        os.write(errors, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _session(file: Path, folder: Path, world: int, *, resume: bool = False, stop_at: int = 0) -> list[int]:
    """The exit codes of the processes of one session."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            _process(file, folder, resume, stop_at, rank, world, port)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def _order(folder: Path, world: int) -> dict[int, list[str]]:
    """By step, the ids of all processes in their order."""
    found: dict[int, list[str]] = {}
    for rank in range(world):
        file = folder.parent / f"{folder.name}-shown-{rank}-{world}.jsonl"
        for line in file.read_text().splitlines():
            at, ids = json.loads(line)
            found[at] = found.get(at, []) + ids
    return found


def _said(folder: Path, world: int) -> str:
    return (folder.parent / f"{folder.name}-{world}-0.log").read_text()


@pytest.fixture(scope="module")
def _forks() -> None:
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_forks")
def test_one_two_and_four_processes_in_turn(recipe_file: Path, tmp_path: Path) -> None:
    """Fault 4: one process; then two, which are stopped; four, which are stopped; one to the end. And 2 → 1."""
    straight, turned = tmp_path / "straight", tmp_path / "turned"
    assert _session(recipe_file, straight, 1) == [0], _said(straight, 1)
    expected = _order(straight, 1)
    assert sorted(expected) == list(range(8))
    assert _session(recipe_file, turned, 2, stop_at=2) == [143, 143], _said(turned, 2)
    assert _session(recipe_file, turned, 4, resume=True, stop_at=5) == [143] * 4, _said(turned, 4)
    # Sixteen pairs cannot be shared by three: refused, and nothing is harmed.
    assert _session(recipe_file, turned, 3, resume=True) == [2, 2, 2]
    assert _said(turned, 3) == (
        "train.batch_size: 16 cannot be shared equally by 3 processes: take a multiple of 3\n"
    )
    assert _session(recipe_file, turned, 1, resume=True) == [0], _said(turned, 1)
    order = _order(turned, 2) | _order(turned, 4) | _order(turned, 1)
    assert order == expected
    ends = [checkpoint.load(folder / "checkpoints" / "step-000008")[0] for folder in (straight, turned)]
    assert ends[0].keys() == ends[1].keys()
    weights = [end["weights"] for end in ends]
    for name, tensor in weights[0].items():
        assert tensor.dtype == torch.float64
        assert torch.allclose(weights[1][name], tensor, rtol=0, atol=1e-11), name
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (straight, turned)]
    losses = [[json.loads(line)["loss"] for line in one] for one in lines]
    assert losses[1] == pytest.approx(losses[0], abs=1e-11)
