"""Arguments and options that several commands share, and how the words of a command line are sorted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import completion
from domainclip.errors import RecipeError

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Override recipe keys, e.g. train.epochs=3.",
        autocompletion=completion.recipe_keys,
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="A built-in recipe by name, or a recipe file.",
        autocompletion=completion.recipes,
    ),
]
OptionalRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help="A built-in recipe by name, or a recipe file.",
        autocompletion=completion.recipes,
    ),
]
CardOption = Annotated[
    str | None,
    typer.Option(
        "--card",
        "-c",
        help="A built-in data card by name, or a card file.",
        autocompletion=completion.cards,
    ),
]


def _run_folder(name: str) -> Path:
    """The folder of a run, fetched where its address is in an object store."""
    if "://" not in name:
        return Path(name)
    from domainclip.pipelines import stored_runs

    return Path(stored_runs.fetched(name))


RunArgument = Annotated[
    Path,
    typer.Argument(
        parser=_run_folder,
        metavar="RUN",
        help="A run folder, e.g. runs/medical_xray-1, or its address in an object store.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress and no summary; print the report's path."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON (results.schema.json), not the path.")
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Number of processes on this machine, one GPU each.")
]


def models_and_overrides(words: Sequence[str], command: str = "eval") -> tuple[list[str], list[str]]:
    """Split the words of `eval` or `explore` into models and KEY=VALUE overrides.

    A folder may have a = in its name.

    Raises: RecipeError when no model is named.
    """
    overrides = [word for word in words if re.match(r"[A-Za-z_][\w.]*=", word) and not os.path.exists(word)]
    models = [word for word in words if word not in overrides]
    if not models:
        raise RecipeError(
            f"{command}: name at least one model: a run folder, a checkpoint folder or a Hub id"
        )
    return models, overrides


def paths_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words of `data check` and `data preview` into paths and KEY=VALUE overrides."""
    overrides = [word for word in words if "=" in word and not os.path.exists(word)]
    return [word for word in words if word not in overrides], overrides


def typed_command() -> str:
    """The command as typed, without what must not be public, for the report."""
    from domainclip.report.redaction import public_command  # it imports the client of the Hub

    return public_command()


def print_report(page: Path | None, as_json: bool) -> None:
    """Print the path of a report, or the results that lie beside it; nothing where a process has none."""
    if page is None:
        return
    # The table of several seeds is a report, too.
    names = {"report": ("results.json", "report.json"), "compare": ("results_compare.json",)}
    files = [page.with_name(name) for name in names.get(page.stem, (f"{page.stem}.json",))]
    results = next((file for file in files if file.is_file()), files[0])
    typer.echo(results.read_text(encoding="utf-8") if as_json else page, nl=not as_json)
