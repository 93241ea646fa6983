"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import RunArgument
from domainclip.cli.output import JsonOption, QuietOption

if TYPE_CHECKING:
    from domainclip.pipelines.export.record import ExportRecord


def export(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="transformers, open_clip, sentence-transformers or onnx.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    precision: Annotated[str, typer.Option(help="Of onnx: fp32, fp16, or int8 (dynamic).")] = "fp32",
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Compare the files, as their library reads them, with the run."
        ),
    ] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a run's model for another library: weights, tokenizer, preprocessing, prompts and thresholds.

    An adapter is merged into plain weights. The other library reads the files back: embeddings that differ by
    more than 1e-5 (onnx: 1e-4) are refused, and answers and metrics on the validation split are compared.
    export.json holds the result, README.md the code that uses the files.

    \b
    domainclip export runs/pets-1 --to transformers --out pets/
    domainclip export runs/pets-1 --to onnx --precision int8 --out pets-onnx/
    """
    from domainclip.pipelines.export import request

    checked = request.make_request(run, to, out, precision, check)
    from domainclip.pipelines.export import export as pipelines_export

    def report(line: str) -> None:
        typer.echo(f"{line} …", err=True)

    result = pipelines_export.export(checked, report) if not quiet else pipelines_export.export(checked)
    if as_json:
        output.print_json({"out": str(out), **result.model_dump(mode="json")})
    elif quiet:
        typer.echo(str(out))
    else:
        _print(out, result)


def _print(out: Path, result: ExportRecord) -> None:
    from domainclip.pipelines.export import readme

    check = result.check
    if check is None:
        typer.echo(f"{out}: {result.form}, not checked")
        return
    typer.echo(
        f"{out}: {result.form}, read by {check.library}; embeddings differ from the run's by at most "
        f"{check.largest_difference:.1e}"
    )
    typer.echo(f"on {check.items} items ({check.items_of}):")
    rows = [(name, f"{share:.1%}", "") for name, share in readme.shares(check)]
    rows += [(one.metric, f"{one.run:.4f}", f"{one.exported:.4f}") for one in check.metrics]
    output.print_table(("", "run", "export"), rows, right=("run", "export"))
    typer.echo(f"How to use it: {out / 'README.md'}")
