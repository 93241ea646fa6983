"""Commands that hand a model on: merge and push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli.arguments import RunArgument


def merge(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(help="Where the plain weights go; must not exist.")],
) -> None:
    """Write a run's adapter into plain weights, and prove that they say the same.

    \b
    domainclip merge runs/medical_xray-1 merged/
    """
    from domainclip.pipelines.merge import merge as merge_run

    difference = merge_run(run, out)
    typer.echo(f"{out}: plain weights; embeddings differ from the adapter's by at most {difference:.1e}")


def push(
    run: RunArgument,
    repo_id: Annotated[str, typer.Option("--repo-id", help="OWNER/NAME on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Anyone may read it; default: private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every file and text that would leave.")
    ] = False,
    include_examples: Annotated[
        bool, typer.Option("--include-examples", help="You attest that pictures and captions may leave.")
    ] = False,
) -> None:
    """Push a run to the Hub, private by default, from an allow-list, with its card.

    \b
    domainclip push runs/medical_xray-1 --repo-id lab/clip-cxr --dry-run
    """
    from domainclip.hub import upload

    url = upload.push(run, repo_id, private=not public, dry_run=dry_run, include_examples=include_examples)
    typer.echo(f"nothing was sent; it would go to {url}" if dry_run else url)
