"""What was typed: for reports, without the paths in it, and sorted into models and recipe keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from domainclip.errors import RecipeError

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys said differently, as in train.epochs=3."),
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="A recipe that ships, by name, or a file of yours.")
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, as runs/medical_xray-1.")]


def models_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names a model, and what says a recipe key differently; a folder may have a = in its name.

    Raises: RecipeError when no model is named.
    """
    said = [word for word in words if re.match(r"[A-Za-z_][\w.]*=", word) and not Path(word).exists()]
    models = [word for word in words if word not in said]
    if not models:
        raise RecipeError("eval: name at least one model: a run folder, a checkpoint folder or a Hub id")
    return models, said
