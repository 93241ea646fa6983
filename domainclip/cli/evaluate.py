"""The verb `eval`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli.arguments import models_and_overrides
from domainclip.report.redaction import public_command


def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE]...",
            help="Run folders, checkpoint folders, Hub ids or base; then recipe keys said differently.",
        ),
    ],
    against: Annotated[str | None, typer.Option(help="base, or another model to compare with.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="What to measure on; default: the run's.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="What is measured: core, medical, multilingual, all, or a file.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help='Classes of your own: "cat,dog", or a YAML file of names or prompts.')
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option("--prompt-template", help='Prompts of your own, as "a scan of {}"; repeat it.'),
    ] = None,
    split: Annotated[str | None, typer.Option(help="test or validation; default: the recipe's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; default: RUN/eval, eval/NAME or eval/compare.")
    ] = None,
) -> None:
    """Measure models on the corpus of a recipe: one alone, two against each other, several in one table.

    \b
    domainclip eval runs/medical_xray-1 --against base --suite medical
    domainclip eval openai/clip-vit-base-patch32 --recipe astronomy corpus.path=sky.csv
    domainclip eval runs/a-1 runs/b-1 runs/c-1 --against base --split validation
    domainclip eval runs/pets-1 --classes "cat,dog" --prompt-template "a blurry photo of a {}"
    """
    from domainclip.pipelines import evaluate as pipelines_evaluate  # torch is imported only now

    models, overrides = models_and_overrides(words)
    asked = pipelines_evaluate.EvalRequest(
        models=models,
        overrides=overrides,
        against=against,
        recipe=recipe,
        suite=suite,
        classes=classes,
        templates=templates or [],
        split=split,
        out=out,
        command=public_command(),
    )
    typer.echo(pipelines_evaluate.evaluate_models(asked))
