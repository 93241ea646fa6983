"""Teacher models: found before training, their outputs computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from domainclip.components import WeightedObjectives
from domainclip.data.batching.pairs import Pairs
from domainclip.errors import ModelError, RecipeError
from domainclip.models import checkpoint_files, image_model, loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_model import ImageModel
from domainclip.models.text_tokenizer import TokenCache
from domainclip.objectives.base import ThirdTower
from domainclip.training import feature_cache
from domainclip.training.cache_entry import CacheBudget
from domainclip.training.setup import Precomputed, TrainingSetup


def fetch_models(terms: WeightedObjectives) -> None:
    """Finds, or fetches, the models that objectives learn from: at once, not when the base has been measured.

    Raises: ModelError with the option that names one which is not there.
    """
    for name, inputs in terms.inputs.items():
        models = [("teachers", path) for path in inputs.teachers]
        if inputs.third_tower is not None and inputs.third_tower.model is not None:
            models.append(("third_tower", inputs.third_tower.model))
        for option, path in models:
            with _named(f"objectives.{name}.{option}"):
                folder, _ = checkpoint_files.find_checkpoint(path, None)
                known = ("config.json", checkpoint_files.ADAPTER_CONFIG)
                checkpoint_files.require_files(path, folder, "model", known)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """A model that cannot be had is told by the option that names it: it is not the base."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{key}: {str(error).removeprefix('base ')}") from None


def precompute_teachers(setup: TrainingSetup) -> TrainingSetup:
    """The same job, with what other models say of its pairs, each encoded once and kept on disk.

    Raises: RecipeError when there is no room for it; ModelError for a teacher that cannot be loaded.
    """
    room = CacheBudget(setup.settings.feature_cache_gb * 1e9)
    taught: dict[str, tuple[feature_cache.TeacherFeatures, ...]] = {}
    base, third = setup.precomputed.base_image, setup.precomputed.third_tower
    for name, objective in setup.objectives.by_name.items():
        inputs = objective.inputs
        if inputs.teachers:
            key = f"objectives.{name}.teachers"
            taught[name] = tuple(_taught(setup, path, key, room) for path in inputs.teachers)
        if "base_image" in objective.needs and base is None:
            model = _locked(setup, setup.model.base, setup.model.revision)
            base = _pictures(setup, model, f"objectives.{name}", room)
        if inputs.third_tower is not None:
            third = _third(setup, inputs.third_tower, f"objectives.{name}.third_tower", room)
            setup = _with_heads(setup, inputs.third_tower, third.shape[1])
    if not taught and base is None and third is None:
        return setup
    kept: Precomputed = replace(setup.precomputed, base_image=base, teachers=taught, third_tower=third)
    return replace(setup, precomputed=kept, notes=(*setup.notes, *room.notes))


def _third(setup: TrainingSetup, tower: ThirdTower, key: str, room: CacheBudget) -> np.ndarray:
    if tower.model is None:
        return _pictures(setup, _locked(setup, setup.model.base, setup.model.revision), key, room)
    with _named(key):
        model = image_model.load_image_model(tower.model).to(next(setup.model.parameters()).device)
    return _pictures(setup, model, key, room)


def _with_heads(setup: TrainingSetup, tower: ThirdTower, third: int) -> TrainingSetup:
    """The setup with the heads of a third tower, `third` wide, added to the model: they learn, unsaved."""
    start = tower.initial_heads(setup.model.width, third, setup.settings.seed)
    heads = torch.nn.Parameter(start.to(next(setup.model.parameters()).device))
    setup.model.added_modules["third"] = torch.nn.ParameterDict({"heads": heads})
    return replace(setup, factors=setup.factors | {"extra/third.heads": tower.learning_rate})


def _taught(setup: TrainingSetup, path: str, key: str, room: CacheBudget) -> feature_cache.TeacherFeatures:
    with _named(key):
        model = _locked(setup, path, None)
    image = _pictures(setup, model, key, room)
    text = feature_cache.cache_text_features(
        model,
        TokenCache(model.text_tokenizer),
        [text for texts in setup.pairs.texts for text in texts or [""]],
        room,
    )
    if text is None:
        raise _no_room(key, room)
    return feature_cache.TeacherFeatures(image, text, float(model.scale))


def _locked(setup: TrainingSetup, path: str, revision: str | None) -> DualEncoder:
    model = loading.load_model(path, revision).to(next(setup.model.parameters()).device)
    return model.requires_grad_(False)


def _pictures(
    setup: TrainingSetup, model: DualEncoder | ImageModel, key: str, room: CacheBudget
) -> np.ndarray:
    assert not setup.pairs.is_streamed
    pairs: Pairs = setup.pairs.for_model(model.image_preprocessor)
    found = feature_cache.cache_image_features(model, pairs, [setup.digests[id] for id in pairs.ids], room)
    if found is None:
        raise _no_room(key, room)
    return found.rows


def _no_room(key: str, room: CacheBudget) -> RecipeError:
    return RecipeError(f"{key}: {room.notes[-1]}: raise train.feature_cache_gb, or make room")
