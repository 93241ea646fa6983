"""Commands that hand a trained model on: `merge` and `push`."""

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


def push(
    run: RunArgument,
    repo_id: Annotated[str, typer.Option("--repo-id", help="OWNER/NAME on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public; default: private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every file and text that would be uploaded.")
    ] = False,
    include_examples: Annotated[
        bool,
        typer.Option(
            "--include-examples",
            help="Upload example images and captions; you attest that they may be shared.",
        ),
    ] = False,
) -> None:
    """Upload a run to the Hub with its model card: private by default, and only files on the allow-list.

    \b
    domainclip push runs/medical_xray-1 --repo-id lab/clip-cxr --dry-run
    """
    from domainclip.hub import upload

    url = upload.push(run, repo_id, private=not public, dry_run=dry_run, include_examples=include_examples)
    typer.echo(f"nothing was uploaded; the repository would be {url}" if dry_run else url)
