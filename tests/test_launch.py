"""Several processes from one command: one voice, the right exit code, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainclip import checkpoint, launch
from domainclip.errors import RecipeError

# An objective of a user, with a fault that only the second process meets, at its third step.
_FAULTY = """
from dataclasses import dataclass
from typing import ClassVar
import time
from domainclip import distributed
from domainclip.errors import DataError

@dataclass(frozen=True, kw_only=True)
class Faulty:
    kind: str = "none"
    citation: ClassVar[str] = "none"
    needs: ClassVar[frozenset[str]] = frozenset()
    seen: ClassVar[list[int]] = []

    def __call__(self, views):
        self.seen.append(1)
        if self.kind == "slow":
            time.sleep(0.3)
        if len(self.seen) == 3 and distributed.rank() == 1:
            if self.kind == "error":
                raise DataError("row 7: no such picture; mend it")
            if self.kind == "bug":
                raise ZeroDivisionError("a bug")
            if self.kind == "kill":
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
        return (views.image * views.text).sum() * 0
"""


def _start(recipe_file: Path, folder: Path, kind: str, *more: str) -> subprocess.Popen[str]:
    (folder / "faulty_part.py").write_text(_FAULTY)
    objectives = f"objectives={{contrastive: {{}}, 'faulty_part:Faulty': {{kind: {kind}}}}}"
    command = [
        sys.executable,
        "-m",
        "domainclip",
        "finetune",
        "--processes",
        "2",
        "-q",
        "-r",
        str(recipe_file),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}:{os.getcwd()}"}
    return subprocess.Popen(
        [*command, "--run-dir", str(folder / "run"), objectives, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def _children(folder: Path) -> list[int]:
    """Processes of this run that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder / "run") in words and "finetune" in words:
            found.append(int(entry.name))
    return found


def test_two_processes_by_one_option(recipe_file: Path, tmp_path: Path) -> None:
    done = _start(recipe_file, tmp_path, "none")
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert out.count("report.html") == 1
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("error", 3, "domainclip: process 1: row 7: no such picture; mend it\n"),
        ("kill", 1, "domainclip: process 1 ended without a word (signal 9); see its output above\n"),
    ],
)
def test_the_failing_process_is_the_one_that_speaks(
    recipe_file: Path, tmp_path: Path, kind: str, code: int, said: str
) -> None:
    process = _start(recipe_file, tmp_path, kind)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert err.endswith(said)
    assert err.count("domainclip:") == 1
    assert _children(tmp_path) == []


def test_a_bug_shows_its_traceback(recipe_file: Path, tmp_path: Path) -> None:
    process = _start(recipe_file, tmp_path, "bug")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "ZeroDivisionError: a bug" in err
    assert _children(tmp_path) == []


def _training(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    metrics = folder / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_signal_to_the_launcher_saves_once(recipe_file: Path, tmp_path: Path) -> None:
    process = _start(recipe_file, tmp_path, "slow", "train.epochs=40")
    _training(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert err.count("continue with --resume") == 1
    assert checkpoint.newest(tmp_path / "run" / "checkpoints") is not None
    assert _children(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_killed_launcher_leaves_nobody(recipe_file: Path, tmp_path: Path) -> None:
    process = _start(recipe_file, tmp_path, "slow", "train.epochs=40")
    _training(tmp_path, process)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while _children(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("processes", "config", "said"),
    [
        (0, None, "--processes: at least 1, not 0"),
        (
            None,
            Path("no.yaml"),
            "--accelerate-config: no.yaml does not exist; make one with `accelerate config`",
        ),
    ],
)
def test_what_cannot_be_started(processes: int | None, config: Path | None, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        launch.launch(["finetune"], processes, config)
    assert str(caught.value) == said
