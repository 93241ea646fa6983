"""The commands `finetune` and `demo`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli.arguments import (
    Json,
    OptionalRecipe,
    Overrides,
    Processes,
    Quiet,
    print_report,
    typed_command,
)
from domainclip.cli.machine_options import AccelerateConfig, Master, NodeCount, NodeRank, RunDir, Slurm
from domainclip.errors import RecipeError

if TYPE_CHECKING:
    from domainclip.config.recipe import Recipe
    from domainclip.pipelines.stored_runs import StoredRun


def finetune(
    overrides: Overrides = None,
    recipe: OptionalRecipe = None,
    run_dir: RunDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --run-dir.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the run and print its plan; train nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    processes: Processes = None,
    accelerate_config: AccelerateConfig = None,
    nodes: NodeCount = None,
    node_rank: NodeRank = None,
    master: Master = None,
    slurm: Slurm = None,
) -> None:
    """Adapt a base model to a corpus, and report what was gained and what was lost.

    \b
    domainclip finetune --recipe medical_xray corpus.path=/data/cxr
    domainclip finetune --recipe art_paintings corpus.path=paintings base=openai/clip-vit-base-patch32
    domainclip finetune --recipe astronomy corpus.path=sky.csv strategy=locked_image train.epochs=3
    domainclip finetune --recipe medical_xray corpus.path=/data/cxr train.seeds=3
    domainclip finetune --resume --run-dir runs/medical_xray-1
    domainclip finetune --processes 4 --recipe medical_xray corpus.path=/data/cxr
    domainclip finetune --nodes 2 --node-rank 0 --master node1:29500 -r medical_xray corpus.path=/data/cxr
    domainclip finetune --slurm partition=gpu,nodes=4,gpus=8,time=12h -r medical_xray corpus.path=/data/cxr
    """
    from domainclip.distributed import launch
    from domainclip.distributed.nodes import parse_nodes
    from domainclip.pipelines import early_checks, stored_runs
    from domainclip.pipelines.locate import locate

    first = not launch.is_launched()  # the launcher has checked what its processes are started with
    stored = None if run_dir is None else stored_runs.stored_run(run_dir)
    if stored is not None and first:
        stored_runs.begin(stored, resume)
    folder = stored.folder if stored is not None else None if run_dir is None else Path(run_dir)
    chosen, folder = locate(recipe, overrides or [], folder, resume)
    machines = None
    if first:
        machines = parse_nodes(nodes, node_rank, master)
        early_checks.check_recipe(chosen)
    run = _Run(chosen, folder, stored, resume, quiet, as_json)
    if dry_run:
        from domainclip.cli.plan import print_plan
        from domainclip.pipelines.plan import make_plan

        print_plan(make_plan.plan(chosen, benchmark=False))
    elif not first:
        _train(run, processes, accelerate_config)
    elif slurm is not None:
        _submit(run, slurm, processes, machines is not None or accelerate_config is not None)
    elif chosen.train.seeds or not (machines or accelerate_config or (processes or 1) > 1):
        if machines is not None:
            raise RecipeError("train.seeds: --nodes starts a single run: set train.seed, or leave it out")
        _train(run, processes, accelerate_config)
    else:
        launch.launch(sys.argv[1:], processes, accelerate_config, machines)


@dataclass(frozen=True)
class _Run:
    """What the options of the command name."""

    recipe: Recipe
    folder: Path | None
    stored: StoredRun | None  # of a run folder in an object store, of which `folder` is the copy
    resume: bool
    quiet: bool
    as_json: bool


def _submit(run: _Run, slurm: str, processes: int | None, has_machines: bool) -> None:
    """Submit the run as a job, and print where it is.

    Raises: RecipeError.
    """
    from domainclip.pipelines.slurm import submit

    if has_machines:
        raise RecipeError("--slurm: starts the machines itself: leave --nodes and --accelerate-config out")
    if run.stored is not None:
        raise RecipeError("--run-dir: --slurm needs a folder on a disk that the machines share: name one")
    typer.echo(submit.submit(run.recipe, run.folder, submit.SubmitRequest(slurm, processes, run.resume)))


def _train(run: _Run, processes: int | None, accelerate_config: Path | None) -> None:
    """Train in this process, and print the report's path.

    Raises: DomainclipError.
    """
    from domainclip.pipelines import finetune as pipelines_finetune
    from domainclip.training.run_context import RunOptions

    stored = run.stored
    options = RunOptions(
        folder=run.folder,
        resume=run.resume,
        quiet=run.quiet,
        command=typed_command(),
        address="" if stored is None else stored.address,
        after_save=None if stored is None else stored.upload_checkpoint,
        at_end=None if stored is None else stored.upload_all,
    )
    if run.recipe.train.seeds:  # each seed starts its own processes
        from domainclip.pipelines import finetune_seeds

        if accelerate_config is not None:
            raise RecipeError("train.seeds: --accelerate-config starts a single run: use one of them")
        if stored is not None:
            raise RecipeError("--run-dir: train.seeds needs a folder of this machine: name one")
        print_report(finetune_seeds.finetune_seeds(run.recipe, options, processes), run.as_json)
        return
    print_report(pipelines_finetune.finetune(run.recipe, options), run.as_json)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the generated corpus and the run.")] = Path(
        "domainclip-demo"
    ),
) -> None:
    """Adapt the built-in base model to generated chest images, offline, and write the report.

    \b
    domainclip demo build/demo
    """
    from domainclip.pipelines import demo as pipelines_demo

    typer.echo(f"report: {pipelines_demo.demo(folder)}")
