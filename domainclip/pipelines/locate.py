"""The recipe and the run folder that a command names; light, for launchers that only look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainclip.config import loading
from domainclip.config.overrides import apply_override
from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError


def locate(
    name: str | None, overrides: Sequence[str], folder: Path | None, resume: bool
) -> tuple[Recipe, Path | None]:
    """The recipe and run folder that the options of the command name.

    Raises: RecipeError when they do not fit together.
    """
    if resume:
        if folder is None:
            raise RecipeError("--resume: name the run to continue with --run-dir RUN")
        if not (folder / "recipe.yaml").is_file():
            raise RecipeError(f"--resume: no run has begun in {folder}: leave --resume out to begin it")
        return loading.load_recipe(name or str(folder / "recipe.yaml"), overrides), folder
    if name is None:
        for word in overrides:  # a recipe without --recipe is refused by its name
            apply_override({}, word)
        raise RecipeError(
            "finetune: name a recipe with --recipe; domainclip recipes list shows the built-in ones"
        )
    return loading.load_recipe(name, overrides), folder


def next_run_folder(parent: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, … that does not exist."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
