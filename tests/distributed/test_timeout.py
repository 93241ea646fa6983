"""Waiting for a process that is slow, and not for one that has stopped."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from domainclip.config import loading
from domainclip.distributed import collectives, heartbeat
from domainclip.errors import RecipeError
from domainclip.evaluation import chunks
from tests.support.processes import started


def _impatient(seconds: int) -> int:
    """From now on the processes give one another so many seconds; which of them this is."""
    # They have met before: how long that takes is the machine's affair.
    for group in (dist.group.WORLD, collectives._gloo_group("keep alive")):
        torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)
    heartbeat.set_timeout(f"{seconds}s")
    return dist.get_rank()


def _slow(folder: str) -> dict[str, Any]:
    rank, began = _impatient(4), time.monotonic()
    told = collectives.on_first_process(lambda: (time.sleep(5), "told")[1])

    def work(rows: list[int]) -> np.ndarray:
        time.sleep(5 * rank)  # the other process has much more to do
        return np.array(rows)

    shares = chunks.map_chunks(work, list(range(40)))
    slow = time.monotonic() - began
    quick = time.monotonic()
    for _ in range(20):
        collectives.on_first_process(lambda: None)
    return {"told": told, "shares": shares, "slow": slow, "quick": time.monotonic() - quick}


def test_a_slow_process_is_waited_for(tmp_path: Path) -> None:
    for found in started(2, tmp_path, _slow, str(tmp_path)):
        assert found["told"] == "told"
        assert [len(part) for part in found["shares"]] == [32, 8]
        assert found["slow"] > 9  # both waits were longer than the four seconds
        assert found["quick"] < 2  # and nobody waits for the next sign of life of one that is done


def _failing(folder: str) -> list[str]:
    rank, said = _impatient(4), []
    try:
        with collectives.keep_alive("this"):
            if rank == 1:
                raise OSError("no space")
    except OSError as error:
        said.append(str(error))
    return [*said, *collectives.gather_objects(f"process {rank} goes on")]


def test_a_fault_leaves_nobody_behind(tmp_path: Path) -> None:
    here, there = started(2, tmp_path, _failing, str(tmp_path))
    assert here == ["process 0 goes on", "process 1 goes on"]
    assert there == ["no space", *here]


def _stopped(folder: str) -> str:
    rank = _impatient(2)
    if rank == 1:
        Path(folder, "pid").write_text(str(os.getpid()))
        with collectives.keep_alive("this"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return ""
    try:
        collectives.on_first_process(lambda: None)
    except RuntimeError as error:
        return str(heartbeat.explain_timeout(error))
    finally:
        os.kill(int(Path(folder, "pid").read_text()), signal.SIGKILL)
    return "waited for nobody"


def test_one_that_has_stopped_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="terminated with signal SIGKILL"):
        started(2, tmp_path, _stopped, str(tmp_path))
    said = torch.load(tmp_path / "rank0.pt")
    assert said == "waiting for the first process: another process did not answer for 2s"


def _leaving(seconds: int) -> tuple[float, float]:
    rank = _impatient(seconds)
    collectives.wait_for_all()  # and again below
    time.sleep(3 * rank)  # the second comes to the end later
    came = time.monotonic()
    collectives.wait_for_all()
    return came, time.monotonic()


@pytest.mark.parametrize("seconds", [60, 1])
def test_nobody_leaves_before_all_have_come(tmp_path: Path, seconds: int) -> None:
    """Control: beyond the patience of the run nobody is waited for."""
    (_, left), (came, _) = started(2, tmp_path, _leaving, seconds)
    assert (left >= came) == (seconds == 60)


def test_no_time_at_all_is_refused(recipe_file: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe(str(recipe_file), ["train.timeout=0s"])
    assert str(caught.value) == (
        "squares.yaml: train.timeout: 0s: processes wait for each other in every step; set 1m or more"
    )
