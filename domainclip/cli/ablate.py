"""The command `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import completion
from domainclip.cli.arguments import Json, Overrides, Processes, Quiet, print_report, typed_command


def ablate(
    plan: Annotated[
        str,
        typer.Argument(
            help="A built-in ablation plan by name, or a plan file.", autocompletion=completion.plans
        ),
    ],
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; default: ablations/PLAN.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at the same time.")] = 1,
    final: Annotated[
        bool,
        typer.Option("--final", help="Then measure the chosen variant and the reference on the test split."),
    ] = False,
    processes: Processes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the variants of a recipe with several seeds, and choose one on the validation split.

    Overrides apply to every variant. Complete runs are not repeated and interrupted ones are continued:
    run the same command again. Without --final, no test item is read.

    \b
    domainclip ablate quickstart corpus.path=demo/chest_phantom retention.path=demo/generated_pictures
    domainclip ablate my_plan.yaml corpus.path=/data/cxr --run-dir ablations/cxr
    domainclip ablate my_plan.yaml corpus.path=/data/cxr --run-dir ablations/cxr --final
    """
    from domainclip.pipelines import early_checks
    from domainclip.pipelines.ablation import plan as ablation_plan

    early_checks.check_recipe(ablation_plan.load_shared(plan, overrides or [])[2])
    from domainclip.pipelines.ablation import ablate as pipelines_ablate

    page = pipelines_ablate.ablate(
        plan,
        overrides or [],
        run_dir,
        jobs=jobs,
        processes=processes,
        quiet=quiet,
        command=typed_command(),
        final=final,
    )
    print_report(page, as_json)
