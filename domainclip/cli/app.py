"""The application: all commands in the order of use, and `main`, which turns errors into exit codes.

A command imports torch only when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Annotated, Any

import typer

from domainclip.cli import (
    ablate,
    audit,
    caption,
    cards,
    classify,
    components,
    data,
    doctor,
    embed,
    evaluate,
    explore,
    export,
    finetune,
    init,
    merge,
    plan,
    push,
    recipes,
    search,
    tune,
)
from domainclip.cli.typed_commands import Commands
from domainclip.config.offline import go_offline
from domainclip.errors import DomainclipError, ExitCode, one_line

app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables may show patient data
    rich_markup_mode=None,
    help="Adapt CLIP models to a domain, and measure what was gained and what was lost.",
    epilog="Start with: domainclip demo, or domainclip init FOLDER for your own data.",
)
app.command()(finetune.demo)
app.command()(init.init)
app.command()(doctor.doctor)
app.command()(plan.validate)
app.command()(plan.plan)
app.command()(finetune.finetune)
app.command(name="eval")(evaluate.evaluate)
app.command()(ablate.ablate)
app.command()(tune.tune)
app.command()(merge.merge)
app.command()(classify.classify)
app.command()(search.search)
app.command()(caption.caption)
app.command()(explore.explore)
app.command()(embed.embed)
app.command()(export.export)
app.command()(push.push)
app.command()(audit.audit)
app.command()(plan.schema)
app.add_typer(recipes.recipes, name="recipes")
app.add_typer(cards.cards, name="cards")
app.add_typer(components.components, name="components")
app.add_typer(data.data, name="data")


def _print_version(requested: bool) -> None:
    if requested:
        from domainclip import __version__  # asks the installed packages

        typer.echo(f"domainclip {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="DOMAINCLIP_OFFLINE",
            help="Make no network call: models and data sets must be on this machine.",
        ),
    ] = False,
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive worker processes
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if offline:
        go_offline()


def main(arguments: list[str] | None = None) -> Any:
    """Run a command. An error that the user can mend is printed as one line, and sets its exit code."""
    import logging
    import warnings

    from domainclip.distributed import launch

    # Deprecation notices between libraries are of no use to a user.
    warnings.simplefilter("ignore", FutureWarning)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    launch.set_up_process()
    try:
        app(arguments, standalone_mode=True)
    except DomainclipError as error:
        _exit(str(error), int(error.code))
    except (
        OSError
    ) as error:  # a full disk, a file in the place of a folder, a folder without write permission
        _exit(f"{error.filename or 'file'}: {error.strerror or error}", int(ExitCode.MODEL))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERRUPTED))
    except Exception as error:
        if isinstance(error, RuntimeError) and (message := launch.explain_loss(error)) is not None:
            _exit(message, int(ExitCode.LOST), echo=True)
        sys.excepthook = _print_bug
        raise


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback without the error's message, which may hold a value of a header, a cell or a path."""
    if os.environ.get("DOMAINCLIP_TRACEBACK") == "full":
        sys.__excepthook__(kind, error, trace)
        return
    print("".join(traceback.format_tb(trace)), end="", file=sys.stderr)
    report = f"domainclip: {kind.__name__}: a fault of domainclip; please report the lines above"
    hint = "the message of the error may hold data of persons: set DOMAINCLIP_TRACEBACK=full to read it"
    print(f"{report}; {hint}", file=sys.stderr)


def _exit(message: str, code: int, echo: bool = False) -> None:
    """Print one line and exit; where several processes run, their launcher prints it."""
    from domainclip.distributed.failures import report_failure

    message = one_line(message)
    if not report_failure(message, code, echo):
        print(f"domainclip: {message}", file=sys.stderr)
    sys.exit(code)
