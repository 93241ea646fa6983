"""The verbs. Each is a few lines: heavy imports stand inside, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from domainclip import __version__
from domainclip.cli import ablate, evaluate, export, finetune, plan
from domainclip.cli.data import data
from domainclip.cli.recipes import recipes
from domainclip.errors import DomainclipError, ExitCode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with locals may show patient data
    rich_markup_mode=None,
    help="Adapt CLIP models to a domain, and prove what that gained and what it cost.",
    epilog="Start with: domainclip demo, or domainclip recipes list. Exit codes: docs/exit-codes.md.",
)
app.add_typer(recipes, name="recipes")
app.add_typer(data, name="data")

app.command()(finetune.finetune)
app.command(name="eval")(evaluate.evaluate)
app.command()(ablate.ablate)
app.command()(plan.plan)
app.command()(plan.validate)
app.command()(plan.schema)
app.command()(export.merge)
app.command()(export.push)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the corpus and the run go.")] = Path(
        "domainclip-demo"
    ),
) -> None:
    """Adapt the embedded base to generated chest phantoms, offline, and write the report.

    \b
    domainclip demo build/demo
    """
    from domainclip.pipelines import demo as pipelines_demo

    typer.echo(f"report: {pipelines_demo.demo(folder)}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"domainclip {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive worker processes
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def main(arguments: list[str] | None = None) -> Any:
    """Runs a command; a fault a person can mend is one line and its exit code."""
    import logging
    import warnings

    from domainclip.distributed import launch

    # Libraries announcing their own future to each other is nothing that a user can act on.
    warnings.simplefilter("ignore", FutureWarning)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    launch.set_up_process()
    try:
        app(arguments, standalone_mode=True)
    except DomainclipError as error:
        _end(str(error), int(error.code))
    except OSError as error:  # a full disk, a folder that is a file, a place that may not be written
        _end(f"{error.filename or 'file'}: {error.strerror or error}", int(ExitCode.MODEL))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERRUPTED))
    except RuntimeError as error:
        if (message := launch.explain_loss(error)) is None:
            raise
        _end(message, int(ExitCode.LOST), echo=True)


def _end(message: str, code: int, echo: bool = False) -> None:
    """One line and an exit code; of several processes, the launcher says the line."""
    from domainclip.distributed.failures import report_failure

    if not report_failure(message, code, echo):
        print(f"domainclip: {message}", file=sys.stderr)
    sys.exit(code)
