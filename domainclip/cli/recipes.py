"""The command group `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

recipes = typer.Typer(
    no_args_is_help=True, help="List, show and copy the built-in recipes.", rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="A built-in recipe, e.g. medical_xray.")]


@recipes.command("list")
def list_recipes() -> None:
    """List the built-in recipes, with one line on each.

    \b
    domainclip recipes list
    """
    from domainclip.config import builtin

    names = builtin.builtin_names("recipes", ".yaml")
    width = max(map(len, names))
    for name in names:
        comment = builtin.find_file("recipes", name, ".yaml").read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{name:{width}}  {comment.removeprefix('#').strip()}")


@recipes.command("show")
def show_recipe(name: Name) -> None:
    """Print a recipe.

    \b
    domainclip recipes show medical_xray
    """
    from domainclip.config import builtin

    typer.echo(builtin.find_file("recipes", name, ".yaml").read_text(encoding="utf-8"), nl=False)


@recipes.command("copy")
def copy_recipe(name: Name, to: Annotated[Path, typer.Argument(help="A new file, or a folder.")]) -> None:
    """Copy a recipe, to edit it; an existing file is not overwritten.

    \b
    domainclip recipes copy medical_xray mine.yaml
    """
    from domainclip.config import builtin
    from domainclip.errors import RecipeError

    target = to / f"{Path(name).stem}.yaml" if to.is_dir() else to
    if target.exists():
        raise RecipeError(f"{target}: exists already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(builtin.find_file("recipes", name, ".yaml").read_bytes())
    typer.echo(target)
