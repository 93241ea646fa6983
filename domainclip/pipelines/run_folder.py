"""The run folder: find or create it, and write what a run needs to be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.data import prepared_format
from domainclip.errors import RecipeError
from domainclip.evaluation import contamination, split_usage
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation
from domainclip.report.provenance import environment


def make_run_folder(folder: Path) -> None:
    """Makes the run folder, where no run has begun yet."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "environment.json").write_text(json.dumps(environment(), indent=1), encoding="utf-8")


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """The resolved recipe, which gives the same run again: from here on there is one to continue."""
    with _writing(folder):
        prepared_format.write_atomically(
            folder / "recipe.yaml", recipe.resolved().encode()
        )  # whole: a resumed run has one


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: name another folder") from None


def locate(
    name: str | None, overrides: Sequence[str], folder: Path | None, resume: bool
) -> tuple[Recipe, Path | None]:
    """The recipe and run folder that the options mean.

    Raises: RecipeError when they do not fit together.
    """
    if resume:
        if folder is None:
            raise RecipeError("--resume: name the run to continue with --run-dir RUN")
        if not (folder / "recipe.yaml").is_file():
            raise RecipeError(f"--resume: no run has begun in {folder}: leave --resume out to begin it")
        return loading.load_recipe(name or str(folder / "recipe.yaml"), overrides), folder
    if name is None:
        raise RecipeError(
            "finetune: name a recipe with --recipe; domainclip recipes list shows those that ship"
        )
    return loading.load_recipe(name, overrides), folder


def choose_run_folder(folder: Path | None, recipe: Recipe, resume: bool) -> Path:
    """The folder to write to; a new run never goes where one is already."""
    if folder is None:
        return next_run_folder(Path("runs"), recipe.name)
    if not resume and (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder}: holds a run already; continue it with --resume or name another --run-dir"
        )
    return folder


def record_baseline(
    folder: Path, sets: list[EvaluationSet], found: Evaluation, encoder: CachedEncoder
) -> None:
    """The run folder, with what was read before anything is trained; no run has begun in it yet."""
    make_run_folder(folder)
    split_usage.record_split_usage(sets, found, [encoder], folder)


def begin_run(folder: Path, recipe: Recipe, learnt: TrainingRecord) -> None:
    """A run that is cut short has left what it trained on as well."""
    write_recipe(folder, recipe)
    contamination.save(folder, learnt)


def next_run_folder(parent: Path, name: str) -> Path:
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
