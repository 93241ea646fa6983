"""The command group `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import completion, output
from domainclip.cli.output import JsonOption

recipes = typer.Typer(
    no_args_is_help=True, help="List, show and copy the built-in recipes.", rich_markup_mode=None
)
_PLANS = "recipes/ablations"
Name = Annotated[
    str,
    typer.Argument(help="A built-in recipe, e.g. medical_xray.", autocompletion=completion.recipes_and_plans),
]


@recipes.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the built-in recipes and ablation plans, with one line on each.

    \b
    domainclip recipes list
    """
    from domainclip.config import builtin

    if as_json:
        output.print_json(
            [
                {
                    "kind": "plan" if kind == _PLANS else "recipe",
                    "name": name,
                    "purpose": _purpose(kind, name),
                }
                for kind in ("recipes", _PLANS)
                for name in builtin.builtin_names(kind, ".yaml")
            ]
        )
        return
    for kind, title in (("recipes", "recipe"), (_PLANS, "plan")):
        if kind == _PLANS:
            typer.echo("\nAblation plans: domainclip ablate NAME; domainclip recipes show ablations/NAME")
        names = builtin.builtin_names(kind, ".yaml")
        output.print_table([title, "purpose"], [[name, _purpose(kind, name)] for name in names])


@recipes.command("show")
def show_recipe(name: Name) -> None:
    """Print a recipe, or a plan.

    \b
    domainclip recipes show medical_xray
    domainclip recipes show ablations/quickstart
    """
    typer.echo(_find(name).read_text(encoding="utf-8"), nl=False)


@recipes.command("copy")
def copy_recipe(name: Name, to: Annotated[Path, typer.Argument(help="A new file, or a folder.")]) -> None:
    """Copy a recipe or a plan, to edit it; an existing file is not overwritten.

    \b
    domainclip recipes copy medical_xray mine.yaml
    """
    from domainclip.config import builtin

    typer.echo(builtin.copy_file(_find(name), to))


def _purpose(kind: str, name: str) -> str:
    """The comment in the first line of a recipe or plan."""
    from domainclip.config import builtin

    comment = builtin.find_file(kind, name, ".yaml").read_text(encoding="utf-8").splitlines()[0]
    return comment.removeprefix("#").strip()


def _find(name: str) -> Path:
    """The file of a recipe, or of the plan ablations/NAME."""
    from domainclip.config import builtin

    plan = name.removeprefix("ablations/")
    return builtin.find_file("recipes" if plan == name else _PLANS, plan, ".yaml")
