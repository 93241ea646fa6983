"""The command `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import output
from domainclip.cli.output import JsonOption
from domainclip.errors import ExitCode


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a JSON file for a bug report, without private data."),
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Also ask whether the Hub can be reached.")] = False,
    train: Annotated[
        bool, typer.Option(help="Train on 32 generated pairs, which must be learned by heart; some seconds.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: packages, decoders, devices, memory, disk, and a training of seconds.

    Exit code 4 when something is at fault. The file of --bundle holds the checks and the versions of all
    packages; texts with a path or a name of this machine or its user are removed from it.

    \b
    domainclip doctor
    domainclip doctor --bundle report.json --no-train
    """
    from domainclip.pipelines.doctor import bundle as doctor_bundle
    from domainclip.pipelines.doctor.examine import examine

    checks = list(examine(hub=hub, train=train))
    if as_json:
        output.print_json(doctor_bundle.document(checks))
    else:
        rows = [[one.level, one.name, one.text, one.remedy] for one in checks]
        output.print_table(["", "check", "found", "remedy"], rows)
    if bundle is not None:
        written = doctor_bundle.write_bundle(checks, bundle)
        typer.echo(f"{written}: read it before you send it", err=True)
    if any(check.level == "fault" for check in checks):
        raise typer.Exit(int(ExitCode.MODEL))
