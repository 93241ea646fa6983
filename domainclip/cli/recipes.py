"""The command group `recipes`."""

from __future__ import annotations

from pathlib import Path

import typer

recipes = typer.Typer(
    no_args_is_help=True, help="The recipes that ship: list, read, copy.", rich_markup_mode=None
)


@recipes.command("list")
def list_recipes() -> None:
    """List the recipes that ship, with what each is for."""
    from domainclip.config import builtin

    names = builtin.builtin_names("recipes", ".yaml")
    wide = max(map(len, names))
    for name in names:
        first = builtin.find_file("recipes", name, ".yaml").read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{name:{wide}}  {first.removeprefix('#').strip()}")


@recipes.command("show")
def show_recipe(name: str) -> None:
    """Print a recipe."""
    from domainclip.config import builtin

    typer.echo(builtin.find_file("recipes", name, ".yaml").read_text(encoding="utf-8"), nl=False)


@recipes.command("copy")
def copy_recipe(name: str, to: Path) -> None:
    """Copy a recipe, to change it; an existing file is not overwritten."""
    from domainclip.config import builtin
    from domainclip.errors import RecipeError

    target = to / f"{Path(name).stem}.yaml" if to.is_dir() else to
    if target.exists():
        raise RecipeError(f"{target}: exists already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(builtin.find_file("recipes", name, ".yaml").read_bytes())
    typer.echo(target)
