"""The command `audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import RunArgument
from domainclip.cli.output import JsonOption

_MARKS = {"passed": "✓", "failed": "✗", "warning": "!", "unknown": "?"}


def audit(
    run: RunArgument,
    corpus: Annotated[
        bool, typer.Option("--corpus", help="Read the corpus again, and look for leaks in it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a finished run: files, leaks between splits, privacy, licences, and what the same bytes need.

    It changes nothing and uses no network. Exit code 3: a check failed.

    \b
    domainclip audit runs/medical_xray-1
    domainclip audit runs/medical_xray-1 --corpus --json
    """
    from domainclip.errors import ExitCode
    from domainclip.pipelines.run_checks import check_run

    check_run(run)
    from domainclip.pipelines.audit.audit import audit as audit_run

    found = audit_run(run, corpus)
    if as_json:
        output.print_json(found.as_json())
    else:
        output.print_table(
            ["", "area", "check"], [[_MARKS[one.status], one.area, one.text] for one in found.checks]
        )
        if found.files:
            typer.echo("\nFiles of the run:")
            rows = [[one.sha256, f"{one.size:,}", one.status, one.path] for one in found.files]
            output.print_table(["sha256", "bytes", "status", "file"], rows, right=("bytes",))
        typer.echo("\nWhat has to be equal for the same bytes:")
        rows = [[one.name, one.run, one.here or ""] for one in found.conditions]
        output.print_table(["condition", "run", "here"], rows)
    if not found.passed:
        failed = sum(one.status == "failed" for one in found.checks)
        typer.echo(f"domainclip: audit: {failed} of {len(found.checks)} checks failed", err=True)
        raise typer.Exit(int(ExitCode.DATA))
