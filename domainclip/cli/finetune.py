"""The command `finetune`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli.arguments import Overrides
from domainclip.report.redaction import public_command


def finetune(
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe by name, or a file of yours.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run is written; default: runs/NAME-N.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --run-dir.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Train on so many processes of this machine, a GPU each.")
    ] = None,
    accelerate_config: Annotated[
        Path | None, typer.Option(help="A file of `accelerate config`, for other machines and engines.")
    ] = None,
) -> None:
    """Adapt a base to a corpus, and report what that gained and what it cost.

    \b
    domainclip finetune --recipe medical_xray.yaml corpus.path=/data/cxr
    domainclip finetune --recipe art_paintings corpus.path=paintings base=openai/clip-vit-base-patch32
    domainclip finetune --recipe astronomy corpus.path=sky.csv strategy=locked_image train.epochs=3
    domainclip finetune --resume --run-dir runs/medical_xray-1
    domainclip finetune --processes 4 --recipe medical_xray corpus.path=/data/cxr
    """
    from domainclip.distributed import launch

    several = accelerate_config is not None or (processes or 1) > 1
    if several and not dry_run and not launch.is_launched():  # a plan is said once
        launch.launch(sys.argv[1:], processes, accelerate_config)
        return
    from domainclip.pipelines import finetune as pipelines_finetune
    from domainclip.pipelines import run_folder

    chosen, folder = run_folder.locate(recipe, overrides or [], run_dir, resume)
    if dry_run:
        from domainclip.pipelines.plan import make_plan

        typer.echo(make_plan.plan(chosen, probe=False).text())
        return
    report = pipelines_finetune.finetune(chosen, folder, resume=resume, quiet=quiet, command=public_command())
    if report is not None:
        typer.echo(report)
