"""The command `init`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.output import JsonOption

if TYPE_CHECKING:  # not at run time: it imports datasets
    from domainclip.pipelines.init.init import Initialised


def init(
    path: Annotated[
        str, typer.Argument(help="A folder, a table, tar shards, a saved data set, or a data set of the Hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for card.md and recipe.yaml.")] = Path(),
    table: Annotated[
        str | None, typer.Option(help="The table of the images, where it does not lie with them.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base model; default: that of the chosen recipe.")
    ] = None,
    show_values: Annotated[
        bool,
        typer.Option("--show-values", help="Show examples of cells; never where they may identify persons."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a corpus, guess its columns, classes, groups and splits, and write a card and a recipe for it.

    Each guess is printed with its reason, and stands as a comment in the files. Nothing is trained.

    \b
    domainclip init /data/shop
    domainclip init table.csv --out shop
    domainclip init /data/dicom --table reports.csv --yes
    """
    from domainclip.data.readers.sources.layout import find_layout

    find_layout(path)  # a path that does not exist costs no import of a library of data sets
    from domainclip.pipelines.init import init as pipelines_init

    silent = yes or as_json or not sys.stdin.isatty()
    request = pipelines_init.InitRequest(path, out, table, base)
    done = pipelines_init.init(
        request, _no_answer if silent else _ask, lambda text: typer.echo(text, err=True)
    )
    if as_json:
        output.print_json(done.as_json(show_values))
    else:
        _print(done, show_values)


def _no_answer(question: str, choices: Sequence[str]) -> None:
    return None


def _ask(question: str, choices: Sequence[str]) -> str:
    typer.echo(f"There are: {', '.join(choices)}", err=True)
    answer: str = typer.prompt(question, err=True)
    return answer.strip()


def _print(done: Initialised, show_values: bool) -> None:
    typer.echo(f"{done.draft.about}; domain: {done.draft.domain.domain} ({done.draft.domain.reason})")
    shown = show_values and done.shows_values
    columns = ["guess", "value", "reason", *(["examples"] if shown else [])]
    rows = [
        [guess.key, _text(guess.value), guess.reason, *([" · ".join(guess.examples)] if shown else [])]
        for guess in done.guesses
    ]
    strategy = next(iter(done.choice.settings["strategy"]))
    rows += [
        ["strategy", strategy, f"recipe {done.choice.recipe}: {done.choice.reason}"],
        ["base", done.base, "--base names another, a folder or an id of the Hub"],
    ]
    output.print_table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows])
    if done.items is not None:
        typer.echo(f"items: {done.items.in_words()}")
        for note in done.items.notes:
            typer.echo(f"note: {note}")
    if show_values and not shown:
        typer.echo("no examples are shown: cells of this corpus may identify persons")
    typer.echo(f"written: {done.card} and {done.recipe}")
    typer.echo("next:")
    for command in done.commands:
        typer.echo(f"  {command}")


def _text(value: object) -> str:
    if isinstance(value, list):
        more = f" and {len(value) - 4} more" if len(value) > 4 else ""
        return ", ".join(map(str, value[:4])) + more
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in list(value.items())[:4])
    return "none" if value == "" else str(value)
