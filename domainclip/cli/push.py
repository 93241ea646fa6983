"""The command `push`."""

from __future__ import annotations

from typing import Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import RunArgument
from domainclip.cli.output import JsonOption


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
    as_json: JsonOption = False,
) -> None:
    """Upload a run to the Hub with its model card: private by default, and only files on the allow-list.

    \b
    domainclip push runs/medical_xray-1 --repo-id lab/clip-cxr --dry-run
    """
    from domainclip.hub import upload

    pushed = upload.push(run, repo_id, private=not public, dry_run=dry_run, include_examples=include_examples)
    if as_json:
        files = [
            {"path": file.path, "bytes": file.size, "sha256": file.sha256, "reason": file.why}
            for file in pushed.files
        ]
        facts = {"repo_id": repo_id, "url": pushed.url, "private": pushed.private, "uploaded": not dry_run}
        output.print_json({"schema_version": 1, **facts, "files": files})
    elif dry_run:
        typer.echo(upload.preview(pushed.files, repo_id, pushed.private))
        typer.echo(f"nothing was uploaded; the repository would be {pushed.url}")
    else:
        typer.echo(pushed.url)
