"""The model of `classify`, `search`, `embed` and `caption`: of a run, a checkpoint, a folder or the Hub."""

from __future__ import annotations

from accelerate import PartialState

from domainclip.evaluation import run_classes
from domainclip.inference.adapted_model import AdaptedModel, load_model
from domainclip.pipelines.checkpoint_model import is_checkpoint, load_checkpoint


def open_model(name: str) -> AdaptedModel:
    """The model of a run folder, of a model or checkpoint folder, or of a Hub id.

    A checkpoint has the classes of its run, without thresholds: those hold for the final weights.

    Raises: ModelError when the model does not exist or cannot be read.
    """
    if not is_checkpoint(name):
        return load_model(name)
    return AdaptedModel(load_checkpoint(name).to(PartialState().device), run_classes.load(name))
