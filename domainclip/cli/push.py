"""The command `push`."""

from __future__ import annotations

from typing import Annotated

import typer

from domainclip.cli.arguments import RunArgument


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
