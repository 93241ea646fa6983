"""The run folder that a model lies in, by the name that a command line gives the model."""

from __future__ import annotations

from pathlib import Path

RECIPE = "recipe.yaml"  # the file that makes a folder a run folder
_PARENTS = 2  # levels between the weights and the run folder at most: RUN/model, RUN/checkpoints/step-8


def find_run(name: str) -> Path | None:
    """The run folder that `name` is, or lies in, as RUN/checkpoints/step-8 does; None for another model."""
    if not Path(name).is_dir():
        return None
    folder = Path(name).resolve()
    if (Path(name) / RECIPE).is_file():
        return Path(name)  # as it was typed: reports inside a run are printed under this name
    return next((one for one in folder.parents[:_PARENTS] if (one / RECIPE).is_file()), None)
