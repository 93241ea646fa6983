"""The command `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import RunArgument
from domainclip.cli.output import JsonOption


def merge(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the merged weights; must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Merge a run's adapter into plain weights, and check that the embeddings stay the same.

    \b
    domainclip merge runs/medical_xray-1 merged/
    """
    from domainclip.pipelines.merge import merge as merge_run

    difference = merge_run(run, out)
    if as_json:
        output.print_json({"schema_version": 1, "out": str(out), "largest_difference": difference})
    else:
        typer.echo(f"{out}: plain weights; embeddings differ from the adapter's by at most {difference:.1e}")
