"""What `eval` is asked for: the models, and the recipe that states what they are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError
from domainclip.evaluation.run_folders import RECIPE, find_run


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """The options of the command."""

    models: Sequence[str]  # a run folder, a checkpoint folder, a Hub id, or "base"
    overrides: Sequence[str] = ()
    against: str | None = None
    recipe: str | None = None
    suite: str | None = None
    classes: str | None = None  # "cat,dog", or a file
    templates: Sequence[str] = ()
    split: str | None = None
    out: Path | None = None
    quiet: bool = False  # no closing lines
    command: str = ""

    @property
    def names(self) -> list[str]:
        """All models, the one that the others are compared with first."""
        return [*([self.against] if self.against else []), *self.models]

    @property
    def changes(self) -> list[str]:
        """The overrides of recipe keys, with those that are options of the command."""
        return [*self.overrides, *([f"evaluate.split={self.split}"] if self.split else [])]


@dataclass(frozen=True)
class TrainedRun:
    """The run that a measured model comes from."""

    folder: Path
    recipe: Recipe


def run_of(request: EvalRequest) -> TrainedRun | None:
    """The first run among the models, with its recipe.

    Raises: RecipeError when "base" would be one of several bases.
    """
    folders = dict.fromkeys(folder for name in request.names if (folder := find_run(name)) is not None)
    runs = [TrainedRun(folder, loading.load_recipe(str(folder / RECIPE))) for folder in folders]
    bases = {run.recipe.base.path for run in runs}
    if "base" in request.names and len(bases) > 1 and not names_base(request.changes):
        raise RecipeError(
            f"eval: base: the {len(runs)} runs have {len(bases)} different bases: name one of them with "
            "--against, or compare the runs without base"
        )
    of_models = [run for run in runs if any(find_run(name) == run.folder for name in request.models)]
    return next(iter(of_models), None)


def recipe_of(request: EvalRequest, run: TrainedRun | None) -> Recipe:
    """The recipe that was named, or that of the run.

    Raises: RecipeError when nothing states what to measure on.
    """
    if request.recipe is None and run is None:
        raise RecipeError(
            f"eval {request.models[-1]}: not a run folder: name what to measure on with --recipe"
        )
    return loading.load_recipe(request.recipe or str(run.folder / RECIPE), request.changes)  # type: ignore[union-attr]


def names_base(changes: Sequence[str]) -> bool:
    """Whether an override names another base."""
    return any(change.partition("=")[0].split(".")[0] == "base" for change in changes)
