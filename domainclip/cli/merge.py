"""The command `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainclip.cli import output
from domainclip.cli.arguments import typed_command
from domainclip.cli.output import JsonOption, QuietOption
from domainclip.errors import RecipeError


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders of one base.")],
    out: Annotated[Path, typer.Option(help="A new folder for the merged model.")],
    shares: Annotated[
        str, typer.Option(help="Share of each update, as 0.6,0.4; default: equal ones that add up to 1.")
    ] = "",
    method: Annotated[
        Literal["arithmetic", "ties"], typer.Option(help="arithmetic: weighted sum; ties: without conflicts.")
    ] = "arithmetic",
    density: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the largest entries that ties keeps.")
    ] = 0.2,
    evaluate: Annotated[
        Literal["none", "validation", "test"],
        typer.Option(help="Measure base, run and merged model on this split of each run's corpus."),
    ] = "none",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge the updates of several runs of one base into one model, for several domains at once.

    Choose shares on the validation split, and read the test split once.

    \b
    domainclip merge runs/art_paintings-1 runs/astronomy-1 --out merged/
    domainclip merge runs/art_paintings-1 runs/astronomy-1 --out merged/ --method ties --evaluate validation
    """
    from domainclip.pipelines.merge_request import MergeRequest

    request = MergeRequest(runs=runs, out=out, method=method, shares=_shares(shares), density=density)
    from domainclip.pipelines import merge as pipelines_merge

    pipelines_merge.merge(request)
    measured = evaluate != "none"
    pages = pipelines_merge.measure(request, evaluate, typed_command()) if measured else []
    if as_json:
        output.print_json({"schema_version": 1, "out": str(out), "reports": [str(page) for page in pages]})
        return
    typer.echo(str(out))
    for page in pages:
        typer.echo(str(page))
    if not quiet and not measured:
        typer.echo("Measure it on the corpus of each run:", err=True)
        for line in pipelines_merge.report_lines(request):
            typer.echo(f"    {line}", err=True)


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")] if text else []
    except ValueError:
        raise RecipeError("--shares: not numbers: write them as 0.6,0.4") from None
