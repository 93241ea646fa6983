"""The commands `finetune` and `demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
from domainclip.errors import RecipeError


def finetune(
    overrides: Overrides = None,
    recipe: OptionalRecipe = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME-N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --run-dir.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the run and print its plan; train nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    processes: Processes = None,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(help="A file of `accelerate config`, for several machines."),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of machines; type the command on each, with --processes of each."),
    ] = None,
    node_rank: Annotated[
        int | None, typer.Option(min=0, help="The number of this machine, from 0; with --nodes.")
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The machine of --node-rank 0, and a free port there."),
    ] = None,
    slurm: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Submit the run as a SLURM job that resumes itself after its time limit; keys: partition, "
            "nodes, gpus, cpus, memory, time, account, qos, constraint, notice; `local`: run it here.",
        ),
    ] = None,
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
    from domainclip.pipelines import early_checks
    from domainclip.pipelines.locate import locate

    chosen, folder = locate(recipe, overrides or [], run_dir, resume)
    machines = None
    if not launch.is_launched():  # the launcher has checked it
        machines = parse_nodes(nodes, node_rank, master)
        early_checks.check_recipe(chosen)
    if machines is not None and chosen.train.seeds:
        raise RecipeError("train.seeds: --nodes starts a single run: set train.seed, or leave --nodes out")
    if slurm is not None and not dry_run:
        if accelerate_config is not None or machines is not None:
            raise RecipeError(
                "--slurm: starts the machines itself: leave --nodes and --accelerate-config out"
            )
        from domainclip.pipelines.slurm import submit

        typer.echo(submit.submit(chosen, folder, submit.SubmitRequest(slurm, processes, resume)))
        return
    several = machines is not None or accelerate_config is not None or (processes or 1) > 1
    if (
        several and not chosen.train.seeds and not dry_run and not launch.is_launched()
    ):  # a plan is printed once
        launch.launch(sys.argv[1:], processes, accelerate_config, machines)
        return
    from domainclip.pipelines import finetune as pipelines_finetune
    from domainclip.training.run_context import RunOptions

    if dry_run:
        from domainclip.pipelines.plan import make_plan

        typer.echo(make_plan.plan(chosen, benchmark=False).text())
        return
    options = RunOptions(folder=folder, resume=resume, quiet=quiet, command=typed_command())
    if chosen.train.seeds:  # each seed starts its own processes
        from domainclip.pipelines import finetune_seeds

        if accelerate_config is not None:
            raise RecipeError("train.seeds: --accelerate-config starts a single run: use one of them")
        print_report(finetune_seeds.finetune_seeds(chosen, options, processes), as_json)
        return
    print_report(pipelines_finetune.finetune(chosen, options), as_json)


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
