"""The option --slurm of `finetune`: write the job, submit it, and name where its log is."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError, library
from domainclip.pipelines.locate import next_run_folder
from domainclip.pipelines.slurm.job import NAME, RunJob
from domainclip.pipelines.slurm.job_options import JobOptions, parse_job_options

FOLDER = "slurm"  # in the run folder: the recipe as submitted, the job, its log
_RESTARTS = 1000  # after a time limit; submitit's own limit is three
_INSTALL = "--slurm: needs submitit: pip install 'domainclip[slurm]'"


@dataclass(frozen=True)
class SubmitRequest:
    """The options of the command that concern a job."""

    slurm: str
    processes: int | None = None  # on each machine
    resume: bool = False


def submit(recipe: Recipe, folder: Path | None, request: SubmitRequest) -> str:
    """Submit a run; the lines for the user: the job, the run folder, the log, and how to follow and stop it.

    Raises: RecipeError for wrong options, a missing library or cluster, and a job that SLURM refuses.
    """
    options = parse_job_options(request.slurm)
    _check(recipe, options)
    run = _run_folder(recipe, folder, request.resume)
    place = run / FOLDER
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    job = RunJob(
        recipe=place / "recipe.yaml",
        folder=run,
        place=Path.cwd(),
        processes=request.processes or options.gpus or 1,
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES") if options.local and not options.gpus else None,
    )
    job.recipe.write_text(recipe.resolved(), encoding="utf-8")
    submitted = _submitted(job, options, place)
    return _lines(submitted, options, run)


def _check(recipe: Recipe, options: JobOptions) -> None:
    if recipe.train.requeue:
        raise RecipeError("train.requeue: --slurm puts the job back into its queue: set train.requeue=false")
    if recipe.train.seeds and options.nodes > 1:
        raise RecipeError("train.seeds: a run of several seeds takes one machine: set nodes=1, or train.seed")
    if importlib.util.find_spec("submitit") is None:
        raise RecipeError(_INSTALL)
    if not options.local and not (shutil.which("sbatch") and shutil.which("srun")):
        raise RecipeError(
            "--slurm: sbatch and srun are not on this machine: submit from a login node of the cluster, or "
            "run it here with --slurm local"
        )


def _run_folder(recipe: Recipe, folder: Path | None, resume: bool) -> Path:
    folder = folder or next_run_folder(Path("runs"), recipe.name)
    if not resume and (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder}: holds a run already; continue it with --resume or name another --run-dir"
        )
    return folder.absolute()


def _submitted(job: RunJob, options: JobOptions, place: Path) -> Any:
    submitit = library("submitit", _INSTALL)
    try:
        if options.local:
            executor = submitit.LocalExecutor(place, max_num_timeout=_RESTARTS)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the job outlives the terminal, as under nohup
        else:
            executor = submitit.SlurmExecutor(place, max_num_timeout=_RESTARTS)
        executor.update_parameters(**_parameters(options))
        return executor.submit(job)
    except (
        submitit.core.utils.FailedJobError,
        subprocess.CalledProcessError,
        OSError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"--slurm: the job was refused: {reason}: check the keys of --slurm") from None


def _parameters(options: JobOptions) -> dict[str, Any]:
    """Return the parameters of submitit's executors, without those of the cluster's default."""
    if options.local:
        return {
            "timeout_min": options.time / 60,
            "signal_delay_s": options.notice,
            "gpus_per_node": options.gpus or 0,
            "stderr_to_stdout": True,
        }
    asked = {
        "partition": options.partition,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem": None if options.memory is None else f"{options.memory}GB",
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
    }
    return {
        "job_name": NAME,
        "wckey": None,  # submitit's own, of which a cluster may know nothing
        "nodes": options.nodes,
        "ntasks_per_node": 1,
        "time": options.minutes,
        "signal_delay_s": options.notice,
        "stderr_to_stdout": True,
        **{key: value for key, value in asked.items() if value is not None},
    }


def _lines(job: Any, options: JobOptions, run: Path) -> str:
    log = shlex.quote(str(job.paths.stdout))
    stop = f"kill -INT {job.job_id}" if options.local else f"scancel {job.job_id}"
    return (
        f"job: {job.job_id}\nrun: {run}\nlog: {job.paths.stdout}\n"
        f"to follow it: tail -F {log}\nto stop it: {stop}"
    )
