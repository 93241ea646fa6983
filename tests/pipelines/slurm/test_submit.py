"""`finetune --slurm`: what is submitted, what the job runs, and which options are refused at once."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.config import loading
from domainclip.errors import RecipeError
from domainclip.pipelines.slurm import job as slurm_job
from domainclip.pipelines.slurm import submit
from domainclip.pipelines.slurm.job import RunJob
from domainclip.pipelines.slurm.job_options import JobOptions, parse_job_options
from domainclip.pipelines.slurm.submit import SubmitRequest


def test_the_keys_of_a_job() -> None:
    text = "partition=gpu, nodes=4,gpus=8,cpus=32,memory=256G,time=1-12:00:00,notice=5m,account=a,qos=q,constraint=c"
    assert parse_job_options(text) == JobOptions(False, "gpu", 4, 8, 32, 256, 129_600, 300, "a", "q", "c")
    assert parse_job_options("local,time=90s,notice=30s").local


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12:00:00", 43_200),
        ("30:00", 1800),
        ("12h", 43_200),
        ("90", 5400),
        ("2-00:00:00", 172_800),
        ("2-00:30", 174_600),
    ],
)
def test_time_as_slurm_reads_it(text: str, seconds: int) -> None:
    if text == "2-00:30":  # days-hours:minutes
        seconds = 2 * 86_400 + 30 * 60
    assert parse_job_options(f"time={text}").time == seconds


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nods=3", '--slurm: "nods": did you mean "nodes"?'),
        ("gpus=", "--slurm gpus: no value: write gpus=8"),
        ("partition", "--slurm partition: no value: write partition=NAME"),
        ("nodes=0", "--slurm nodes: not a valid value: write nodes=4"),
        ("time=soon", "--slurm time: not a valid value: write time=12:00:00 or 12h"),
        ("local,nodes=2", "--slurm nodes: local is this machine alone: leave nodes out"),
        (
            "time=1m",
            "--slurm notice: 120 s before a time limit of 60 s leaves none for the run: set a longer time, or a "
            "shorter notice",
        ),
    ],
)
def test_wrong_keys(text: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_job_options(text)
    assert str(caught.value) == line


class _Executor:
    """submitit's executors, without submitit: what they are given."""

    asked: dict[str, Any] = {}

    def __init__(self, folder: Path, max_num_timeout: int) -> None:
        self.folder = folder

    def update_parameters(self, **parameters: Any) -> None:
        _Executor.asked = parameters

    def submit(self, job: RunJob) -> Any:
        _Executor.asked["job"] = job
        paths = types.SimpleNamespace(stdout=self.folder / "4711_0_log.out")
        return types.SimpleNamespace(job_id="4711", paths=paths)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with submitit, sbatch and srun, all of which only pretend."""
    for name in ("sbatch", "srun"):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("#!/bin/sh\nexit 1\n")
        file.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    library = types.ModuleType("submitit")
    library.SlurmExecutor = library.LocalExecutor = _Executor  # type: ignore[attr-defined]
    library.__spec__ = types.SimpleNamespace(name="submitit")  # type: ignore[assignment]
    library.core = types.SimpleNamespace(  # type: ignore[attr-defined]
        utils=types.SimpleNamespace(FailedJobError=ValueError, FailedSubmissionError=ValueError)
    )
    monkeypatch.setitem(sys.modules, "submitit", library)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_job_of_several_machines(cluster: Path, recipe_file: Path) -> None:
    words = ["finetune", "-r", str(recipe_file), "train.epochs=2"]
    asked = "partition=gpu,nodes=4,gpus=8,time=12:00:00"
    result = CliRunner().invoke(app, [*words, "--slurm", asked], catch_exceptions=False)
    run = cluster / "runs" / "squares-1"
    log = run / "slurm" / "4711_0_log.out"
    assert result.stdout.splitlines() == [
        "job: 4711",
        f"run: {run}",
        f"log: {log}",
        f"to follow it: tail -F {log}",
        "to stop it: scancel 4711",
    ]
    job = _Executor.asked.pop("job")
    assert _Executor.asked == {
        "job_name": "domainclip",  # nothing of the corpus: a queue is public
        "wckey": None,
        "nodes": 4,
        "ntasks_per_node": 1,
        "time": 720,
        "signal_delay_s": 120,
        "stderr_to_stdout": True,
        "partition": "gpu",
        "gpus_per_node": 8,
    }
    assert loading.load_recipe(str(run / "slurm" / "recipe.yaml"), []).train.epochs == 2
    assert (run / "slurm").stat().st_mode & 0o077 == 0
    hosts = ["node7", "node8"]
    assert job.command("4711", hosts, 1)[4:] == [
        *("--run-dir", str(run), "--recipe", str(run / "slurm" / "recipe.yaml"), "--processes", "8"),
        *("--nodes", "2", "--node-rank", "1", "--master", "node7:24711"),
    ]
    (run / "recipe.yaml").touch()
    assert job.command("4711", ["node7"], 0)[4:] == ["--run-dir", str(run), "--resume", "--processes", "8"]
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_local_job_outlives_the_terminal(
    cluster: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    before = signal.getsignal(signal.SIGHUP)
    recipe = loading.load_recipe(str(recipe_file), [])
    try:
        text = submit.submit(recipe, cluster / "here", SubmitRequest("local,time=90s,notice=30s"))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert text.endswith("to stop it: kill -INT 4711")
    job = _Executor.asked.pop("job")
    assert (job.visible_gpus, job.processes) == ("3", 1)  # submitit would hide the GPUs
    assert _Executor.asked["timeout_min"] == 1.5


@pytest.mark.parametrize(
    ("slurm", "words", "line"),
    [
        ("nodes=2", ["train.seeds=2"], "train.seeds: a run of several seeds takes one machine"),
        ("nodes=2", ["train.requeue=true"], "train.requeue: --slurm puts the job back into its queue"),
        (
            "nodes=2",
            ["--nodes", "2", "--node-rank", "0", "--master", "localhost:1"],
            "--slurm: starts the machines",
        ),
        ("nodes=2", ["--run-dir", "begun"], "holds a run already"),
    ],
)
def test_what_is_not_submitted(
    cluster: Path, recipe_file: Path, slurm: str, words: list[str], line: str
) -> None:
    (cluster / "begun").mkdir()
    (cluster / "begun" / "recipe.yaml").touch()
    result = CliRunner().invoke(app, ["finetune", "-r", str(recipe_file), "--slurm", slurm, *words])
    assert isinstance(result.exception, RecipeError)
    assert line in str(result.exception)


def test_a_refused_job_is_one_line(cluster: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise subprocess.CalledProcessError(1, "sbatch")

    monkeypatch.setattr(_Executor, "submit", refused)
    with pytest.raises(RecipeError, match=r"--slurm: the job was refused: .*: check the keys of --slurm"):
        submit.submit(loading.load_recipe(str(recipe_file), []), None, SubmitRequest("partition=no"))


def test_a_machine_without_a_cluster_or_the_library(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = loading.load_recipe(str(recipe_file), [])
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RecipeError, match=r"--slurm: needs submitit: pip install 'domainclip\[slurm\]'"):
        submit.submit(recipe, None, SubmitRequest("partition=gpu"))
    library = types.ModuleType("submitit")
    library.__spec__ = types.SimpleNamespace(name="submitit")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "submitit", library)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match="sbatch and srun are not on this machine"):
        submit.submit(recipe, None, SubmitRequest("partition=gpu"))


_CHILD = """
import signal, sys, time, pathlib
def stop(*_):
    pathlib.Path("checkpoints/step-000001").mkdir(parents=True)
    sys.exit(143)
signal.signal(signal.SIGUSR1, stop)
assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN  # SLURM sends it to every process
pathlib.Path("there").touch()
time.sleep(60)
"""


def test_the_signal_of_the_limit_saves_and_a_job_without_progress_ends(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal interrupts the job, which tells its run to save, waits for it, and asks for a new session."""
    library: Any = sys.modules["submitit"]
    library.helpers = types.SimpleNamespace(DelayedSubmission=lambda job: job)
    library.JobEnvironment = lambda: types.SimpleNamespace(job_id="1", hostnames=["here"], node=0)
    monkeypatch.setattr(RunJob, "command", lambda *_: [sys.executable, "-c", _CHILD])
    job = RunJob(cluster / "recipe.yaml", cluster, cluster, 1)
    asked: list[RunJob] = []

    def limit(*_: Any) -> None:
        asked.append(job.checkpoint())

    def wait(seconds: float) -> None:
        if (cluster / "there").exists() and not asked:
            os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, limit)
    monkeypatch.setattr(slurm_job.time, "sleep", wait)
    try:
        with pytest.raises(RecipeError, match="the run ended with exit code 143"):  # no new session here
            job()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (asked, job.newest, job.idle) == ([job], "step-000001", 0)
    again = pickle.loads(pickle.dumps(job))
    again.checkpoint()
    again.checkpoint()
    with pytest.raises(RecipeError, match="3 sessions in a row saved no checkpoint: set a longer time"):
        again.checkpoint()
