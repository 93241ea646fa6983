"""Teacher models and third towers: fetched before training, their embeddings computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from domainclip.components import WeightedObjectives
from domainclip.data.batching.pairs import Pairs
from domainclip.errors import ModelError, RecipeError
from domainclip.models import base_loading, checkpoint_files, folder_checks, image_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_model import ImageModel
from domainclip.models.open_clip.config import FILE as OPEN_CLIP
from domainclip.models.parameters import objective_weight_name
from domainclip.models.text_tokenizer import TokenCache
from domainclip.objectives.base import ThirdTower
from domainclip.training import feature_cache
from domainclip.training.anchor_images import AnchorFeatures, precompute_anchor_images
from domainclip.training.cache_entry import CacheBudget
from domainclip.training.objective_inputs import caption_vocabulary
from domainclip.training.precision import frozen_precision
from domainclip.training.setup import Precomputed, TrainingSetup


def fetch_models(terms: WeightedObjectives) -> None:
    """Fetch the models that objectives learn from, so that a missing one fails before the base is evaluated.

    Raises: ModelError with the option that names it.
    """
    for name, inputs in terms.inputs.items():
        models = [("teachers", path) for path in inputs.teachers]
        if inputs.third_tower is not None and inputs.third_tower.model is not None:
            models.append(("third_tower", inputs.third_tower.model))
        for option, path in models:
            with _named_by_option(f"objectives.{name}.{option}"):
                inside = folder_checks.run_model(Path(path).expanduser())
                folder, _ = checkpoint_files.find_checkpoint(str(inside or path), None)
                files = ("config.json", checkpoint_files.ADAPTER_CONFIG, OPEN_CLIP)
                checkpoint_files.require_files(path, folder, "model", files)


@contextmanager
def _named_by_option(key: str) -> Iterator[None]:
    """Names the option in the message of a ModelError, which speaks of the base otherwise."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{key}: {str(error).removeprefix('base ')}") from None


def precompute_teachers(setup: TrainingSetup) -> TrainingSetup:
    """The setup with the embeddings of its pairs by other models, each computed once and cached on disk.

    Raises: RecipeError when the cache has no room for them; ModelError for a model that cannot be loaded.
    """
    budget = CacheBudget(setup.settings.feature_cache_gb * 1e9)
    teachers: dict[str, tuple[feature_cache.TeacherFeatures, ...]] = {}
    base, third = setup.precomputed.base_image, setup.precomputed.third_tower
    anchors = setup.precomputed.anchor_images
    for name, objective in setup.objectives.by_name.items():
        inputs = objective.inputs
        if inputs.teachers:
            key = f"objectives.{name}.teachers"
            teachers[name] = tuple(_teacher_features(setup, path, key, budget) for path in inputs.teachers)
        if "base_image" in objective.needs and base is None:
            model = _frozen_model(setup, setup.model.base, setup.model.revision)
            base = _image_features(setup, model, f"objectives.{name}", budget)
        if "anchor_image" in objective.needs and anchors is None:
            anchors = _anchor_features(setup, f"objectives.{name}", budget)
        if inputs.third_tower is not None:
            third = _third_tower_features(setup, inputs.third_tower, f"objectives.{name}.third_tower", budget)
    if teachers or any(part is not None for part in (anchors, base, third)):
        precomputed: Precomputed = replace(
            setup.precomputed, anchor_images=anchors, base_image=base, teachers=teachers, third_tower=third
        )
        setup = replace(setup, precomputed=precomputed, notes=(*setup.notes, *budget.notes))
    if "caption_ids" in setup.objectives.needs:
        vocabulary = caption_vocabulary(setup.pairs, setup.model.text_tokenizer)
        setup = replace(setup, precomputed=replace(setup.precomputed, vocabulary=vocabulary))
    return _with_own_weights(setup)


def _anchor_features(setup: TrainingSetup, key: str, budget: CacheBudget) -> AnchorFeatures:
    assert setup.anchor_images is not None  # loaded for the objective
    model = _frozen_model(setup, setup.model.base, setup.model.revision)
    features = precompute_anchor_images(setup.anchor_images, model, budget, setup.settings)
    if features is None:
        raise _budget_error(key, budget)
    return features


def _third_tower_features(
    setup: TrainingSetup, tower: ThirdTower, key: str, budget: CacheBudget
) -> np.ndarray:
    if tower.model is None:
        return _image_features(
            setup, _frozen_model(setup, setup.model.base, setup.model.revision), key, budget
        )
    with _named_by_option(key):
        model = image_model.load_image_model(tower.model).to(next(setup.model.parameters()).device)
    return _image_features(setup, model, key, budget)


def _with_own_weights(setup: TrainingSetup) -> TrainingSetup:
    """The setup with the own weights of the objectives added to the model: they learn, and are not saved."""
    rates: dict[str, float] = {}
    for name, objective in setup.objectives.by_name.items():
        if start := objective.initial_weights(setup.sizes, setup.settings.seed):
            setup.model.add_objective_weights(name, start)
            rates |= {objective_weight_name(name, key): objective.own_learning_rate for key in start}
    return replace(setup, factors=setup.factors | rates)


def _teacher_features(
    setup: TrainingSetup, path: str, key: str, budget: CacheBudget
) -> feature_cache.TeacherFeatures:
    with _named_by_option(key):
        model = _frozen_model(setup, path, None)
    image = _image_features(setup, model, key, budget)
    text = feature_cache.cache_text_features(
        model,
        TokenCache(model.text_tokenizer),
        list(setup.pairs.texts()),
        budget,
        frozen_precision(setup.settings),
    )
    if text is None:
        raise _budget_error(key, budget)
    return feature_cache.TeacherFeatures(image, text, float(model.scale))


def _frozen_model(setup: TrainingSetup, path: str, revision: str | None) -> DualEncoder:
    model = base_loading.load_base_model(path, revision).to(next(setup.model.parameters()).device)
    return model.requires_grad_(False)


def _image_features(
    setup: TrainingSetup, model: DualEncoder | ImageModel, key: str, budget: CacheBudget
) -> np.ndarray:
    assert not setup.pairs.is_streamed
    pairs: Pairs = setup.pairs.for_model(model.image_preprocessor)
    features = feature_cache.cache_image_features(
        model,
        pairs,
        [setup.digests[id] for id in pairs.ids],
        budget,
        precision=frozen_precision(setup.settings),
    )
    if features is None:
        raise _budget_error(key, budget)
    return features.rows


def _budget_error(key: str, budget: CacheBudget) -> RecipeError:
    return RecipeError(f"{key}: {budget.notes[-1]}: raise train.feature_cache_gb, or make room")
