"""The command `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import completion
from domainclip.cli.arguments import Json, Quiet, models_and_overrides, print_report, typed_command

_Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help="Recipe that names corpus and probes; default: the run's.",
        autocompletion=completion.recipes,
    ),
]
_Suite = Annotated[
    str | None,
    typer.Option(
        help="Set of probes: core, medical, multilingual, all, or a suite file.",
        autocompletion=completion.suites,
    ),
]

_Against = Annotated[str | None, typer.Option(help="The model to compare with: base, or another one.")]
_Templates = Annotated[
    list[str] | None,
    typer.Option("--prompt-template", help='Other prompt template, e.g. "a scan of {}"; repeatable.'),
]
_Out = Annotated[
    Path | None,
    typer.Option(help="Report folder; default: RUN/eval, RUN/eval/CORPUS, eval/NAME or eval/compare."),
]
_Part = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Only encode the images of part I of N into the cache, as one job of an array; then eval.",
    ),
]


def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE]...",
            help="Run folders, checkpoint folders, Hub ids or base; then overrides of recipe keys.",
        ),
    ],
    against: _Against = None,
    recipe: _Recipe = None,
    suite: _Suite = None,
    classes: Annotated[
        str | None,
        typer.Option(help='Other class names: "cat,dog", or a YAML file of names or of prompts by name.'),
    ] = None,
    prompt_templates: _Templates = None,
    split: Annotated[str | None, typer.Option(help="test or validation; default: the recipe's.")] = None,
    out: _Out = None,
    part: _Part = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate models on the corpus of a recipe, or on another: alone, compared, or several in one table.

    \b
    domainclip eval runs/medical_xray-1 --against base --suite medical
    domainclip eval openai/clip-vit-base-patch32 --recipe astronomy corpus.path=sky.csv
    domainclip eval runs/a-1 runs/b-1 runs/c-1 --against base --split validation
    domainclip eval runs/medical_xray-1 --against base corpus.path=/data/other_hospital
    domainclip eval runs/pets-1 --classes "cat,dog" --prompt-template "a blurry photo of a {}"
    domainclip eval runs/medical_xray-1 --against base --part 3/8
    """
    from domainclip.pipelines import early_checks, stored_runs
    from domainclip.pipelines.eval_request import EvalRequest
    from domainclip.pipelines.parts import parse_part

    models, overrides = models_and_overrides(words)
    models = [stored_runs.fetched(name) for name in models]
    against = None if against is None else stored_runs.fetched(against)
    request = EvalRequest(
        models=models,
        overrides=overrides,
        against=against,
        recipe=recipe,
        suite=suite,
        classes=classes,
        templates=prompt_templates or [],
        split=split,
        out=out,
        quiet=quiet,
        command=typed_command(),
    )
    chosen = parse_part(part)
    early_checks.check_evaluation(request)
    from domainclip.pipelines import evaluate as pipelines_evaluate

    if chosen is not None:
        typer.echo(pipelines_evaluate.encode_part(request, chosen))
        return
    print_report(pipelines_evaluate.evaluate_models(request), as_json)
