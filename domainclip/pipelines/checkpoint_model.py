"""A checkpoint of a run, RUN/checkpoints/step-N, as a model: the weights of that step on the run's base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from domainclip.components import build_components
from domainclip.config import loading
from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.evaluation.run_folders import RECIPE, find_run
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.parameters import OBJECTIVE_WEIGHTS, objective_weight_name
from domainclip.pipelines.base_model import load_base
from domainclip.training.checkpointing import checkpoint
from domainclip.training.state import AVERAGE


def is_checkpoint(name: str) -> bool:
    """Whether a folder is a checkpoint that a run wrote to continue from."""
    folder = Path(name)
    return (folder / checkpoint.MANIFEST).is_file() and (folder / "state.json").is_file()


def load_checkpoint(name: str) -> DualEncoder:
    """The model as it was at the step of the checkpoint, before any interpolation of weights.

    Where the run averages its weights, it is the average.

    Base and strategy are those of the run's recipe: a checkpoint holds only the weights that are trained.

    Raises: ModelError for a checkpoint outside of a run, a damaged one, or another base.
    """
    run = find_run(name)
    if run is None:
        raise ModelError(
            f"{name}: a checkpoint outside of its run folder, whose recipe names the base: move it back"
        )
    if problem := checkpoint.verify_checkpoint(Path(name)):
        raise ModelError(f"{name}: not complete: {problem}: name another checkpoint of the run")
    groups, facts = checkpoint.load(Path(name))
    recipe = loading.load_recipe(str(run / RECIPE))
    known = run_classes.load(name)
    components = build_components(recipe)
    strategy = components.strategy.with_classes([] if known is None else list(known.classes))
    model = strategy.build_model(load_base(recipe, strategy))
    if facts["identity"]["base"] != model.fingerprint("all"):
        raise ModelError(
            f"{name}: the base's weights have changed since this checkpoint: restore {recipe.base.path}"
        )
    torch.manual_seed(recipe.train.seed)
    strategy.stages(model)  # adds adapters, and whatever else is trained
    weights = model.weights()
    stored = groups.get(AVERAGE, groups["weights"])
    with torch.no_grad():
        for weight_name, tensor in stored.items():
            if not weight_name.startswith(OBJECTIVE_WEIGHTS):
                weights[weight_name].copy_(tensor)
    for name, objective in components.objectives.by_name.items():
        own = _of_objective(stored, objective_weight_name(name, ""))
        if own:
            objective.add_to_model(model, own, _of_objective(groups.get("memory", {}), f"{name}/"))
    return model.eval()


def _of_objective(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
