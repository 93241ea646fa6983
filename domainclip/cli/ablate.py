"""The verb `ablate`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.report.redaction import public_command


def ablate(
    plan: Annotated[str, typer.Argument(help="A plan that ships, by name, or a file of yours.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys said differently, for every variant."),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where runs and table go; default: ablations/PLAN.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at work at once.")] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes of each run, a GPU each, as in finetune.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train the variants of a recipe with several seeds, and compare them in one table.

    Complete runs are not repeated, and an interrupted one goes on: give the same command again.

    \b
    domainclip ablate quickstart corpus.path=demo/chest_phantom retention.path=demo/generated_pictures
    domainclip ablate my_plan.yaml corpus.path=/data/cxr evaluate.split=validation --run-dir ablations/cxr
    """
    from domainclip.pipelines import ablation  # torch is imported only now

    typer.echo(
        ablation.ablate(
            plan,
            overrides or [],
            run_dir,
            jobs=jobs,
            processes=processes,
            quiet=quiet,
            command=public_command(),
        )
    )
