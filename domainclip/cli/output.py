"""Results on standard output: a table for people, or JSON or CSV for programs; remarks on standard error."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from domainclip.errors import ExitCode, RecipeError, one_line

if TYPE_CHECKING:
    from domainclip.inference.image_stream import UnreadableSource

Format = Literal["table", "json", "csv"]
ModelArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, a model or checkpoint folder, or a Hub id.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, one row per image.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no remarks.")]
ImageColumn = Annotated[
    str | None, typer.Option(help="The column of a table that names the images; default: a guess.")
]

_NAMED = 20  # unreadable images that are listed


def output_format(as_json: bool, as_csv: bool) -> Format:
    """The format that two options choose.

    Raises: RecipeError for both.
    """
    if as_json and as_csv:
        raise RecipeError("--json and --csv: name one of them")
    return "json" if as_json else "csv" if as_csv else "table"


def print_json(document: Any) -> None:
    """Print a JSON document, letters as they are."""
    json.dump(document, sys.stdout, ensure_ascii=False, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def print_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print CSV (RFC 4180, with line feeds)."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    wrap: Sequence[str] = (),
) -> None:
    """Print an aligned table; in a pipe no cell is cut or wrapped.

    The columns in `right` are aligned on the right; on a terminal those in `wrap` take several lines, and
    the others are cut.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            Text(name),
            justify="right" if name in right else "left",
            no_wrap=name not in wrap,
            overflow="fold" if name in wrap else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(highlight=False, width=100_000)
    with wide.capture() as captured:
        wide.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def report_unreadable(unreadable: Sequence[UnreadableSource], total: int) -> None:
    """Name the images that cannot be read, with their reasons, and exit with the code for data faults.

    Raises: typer.Exit when there are any.
    """
    if not unreadable:
        return
    for one in unreadable[:_NAMED]:
        typer.echo(one_line(f"{one.name}: {one.reason}"), err=True)
    if len(unreadable) > _NAMED:
        typer.echo(f"… and {len(unreadable) - _NAMED} more", err=True)
    reasons = Counter(one.reason for one in unreadable).most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
    typer.echo(f"domainclip: {len(unreadable)} of {total} images cannot be read: {listed}", err=True)
    raise typer.Exit(int(ExitCode.DATA))


def print_notes(notes: Sequence[str], quiet: bool) -> None:
    """Print remarks on standard error."""
    for note in () if quiet else notes:
        typer.echo(one_line(f"note: {note}"), err=True)
