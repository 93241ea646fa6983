"""The models that `eval` measures, loaded once, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from domainclip.config.recipe import Base
from domainclip.evaluation import contamination
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.pipelines.checkpoint_model import is_checkpoint, load_checkpoint
from domainclip.report import model_facts


@dataclass(frozen=True)
class EvaluatedModels:
    """The models of an evaluation in their order, with a label each."""

    names: Sequence[str]  # as typed: a run folder, a checkpoint folder, a Hub id, or "base"
    base: Base  # of the run, which the name "base" stands for
    models: Sequence[DualEncoder]
    labels: Sequence[str]

    def training_records(self) -> dict[str, TrainingRecord | None]:
        """The images that each model was trained on, by its label.

        Raises: ModelError for a broken record.
        """
        sources = [self.base.path if name == "base" else name for name in self.names]
        return {label: contamination.load(source) for label, source in zip(self.labels, sources, strict=True)}


def load_models(names: Sequence[str], base: Base) -> EvaluatedModels:
    """The model of each name, loaded once, and all shown the same images of an item.

    A model that pools images in no way of its own takes the mean over them.

    Raises: ModelError for a model that cannot be loaded.
    """
    device = Accelerator().device
    loaded: dict[str, DualEncoder] = {}
    for name in dict.fromkeys(names):
        inside = Path(name) / "model"
        if name == "base":
            model = load_base_model(base.path, base.revision)
        elif is_checkpoint(name):
            model = load_checkpoint(name)
        else:
            model = load_model(inside if inside.is_dir() else name)
        loaded[name] = model.to(device)
    frames = max(model.frames for model in loaded.values())
    shown = {
        name: model.with_frames(frames) if model.frame_pooling is None else model
        for name, model in loaded.items()
    }
    models = [shown[name] for name in names]
    labels = [model_facts.model_label(name, model) for name, model in zip(names, models, strict=True)]
    return EvaluatedModels(names, base, models, _different(labels))


def _different(labels: Sequence[str]) -> list[str]:
    """The labels; of two runs of one name, each with its place in the table."""
    repeated = {label for label in labels if labels.count(label) > 1}
    return [f"{label} ({place})" if label in repeated else label for place, label in enumerate(labels, 1)]
