"""Whether a folder is that of a run; nothing else is imported, so that a wrong name costs nothing."""

from __future__ import annotations

from pathlib import Path

from domainclip.errors import ModelError, RecipeError

_RECIPE = "recipe.yaml"


def check_run(run: Path) -> None:
    """Check that a folder is that of a run.

    Raises: RecipeError.
    """
    if not (run / _RECIPE).is_file():
        raise RecipeError(f"{run}: no {_RECIPE} there: name a run folder, as runs/medical_xray-1")


def check_run_model(run: Path) -> None:
    """Check that a run folder has a model.

    Raises: ModelError, which for a run of several seeds names the folder of one.
    """
    if (run / "model").is_dir():
        return
    seeds = sorted(folder.parent for folder in run.glob("seed-*/model"))
    if seeds:
        raise ModelError(f"{run}: a run of {len(seeds)} seeds, each with its model: name one: {seeds[0]}")
    raise ModelError(f"{run}: no folder model there: name a run folder, as runs/medical_xray-1")
