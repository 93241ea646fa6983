"""`finetune --slurm local`: ended by its time limit, put back, resumed, and bit-equal to an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit")

# In its first session the run waits at its fifth step for the signal of the time limit, however slow the machine is.
_WAITING = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import signal, time
from domainclip.objectives.base import Objective

@dataclass(frozen=True, kw_only=True)
class Waiting(Objective):
    until: str
    citation: ClassVar[str] = "none"
    steps: ClassVar[list[int]] = []

    def __call__(self, views):
        self.steps.append(1)
        waits = len(self.steps) == 5 and not Path(self.until).exists()
        while waits and signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:
            time.sleep(0.05)
        return (views.image * views.text).sum() * 0
"""
_LIMIT, _NOTICE = 180, 120  # seconds; a run that has not begun by then is put back, three times at most


def test_a_job_that_is_ended_by_its_time_limit_ends_bit_equal(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "waiting_part.py").write_text(_WAITING)
    words = [sys.executable, "-m", "domainclip", "finetune", "-r", str(recipe_file)]
    words += ["train.save_every=1000", "train.precision=fp32"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    run, plain = tmp_path / "run", tmp_path / "plain"

    def objectives(until: Path) -> str:
        return f"objectives={{contrastive: {{}}, 'waiting_part:Waiting': {{until: {until}}}}}"

    job = [*words, objectives(run / "checkpoints"), "--run-dir", str(run)]
    job += ["--slurm", f"local,time={_LIMIT}s,notice={_NOTICE}s"]
    lines = subprocess.run(job, check=True, capture_output=True, text=True, env=environment).stdout
    log = Path(lines.split("log: ")[1].splitlines()[0])
    subprocess.run([*words, "-q", objectives(tmp_path), "--run-dir", str(plain)], check=True, env=environment)
    until = time.monotonic() + 6 * _LIMIT
    while not log.exists() or "Job completed successfully" not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)
    text = log.read_text()
    assert "stopped at step 5 of " in text
    assert "Requeued job" in text
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, plain)]
    assert weights[0] == weights[1]
    assert (run / "report.html").is_file()
