"""What is trained, on what, and what of it one process brings to a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from domainclip import components
from domainclip.config.recipe import Recipe
from domainclip.data.batching.batch import Batch
from domainclip.data.batching.order import process_share
from domainclip.data.batching.pairs import Pairs
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.base import Teacher
from domainclip.strategies.base import Stage
from domainclip.training import anchor_texts, feature_cache
from domainclip.training.microbatches import Captions
from domainclip.training.validation import ValidationSet
from domainclip.training.views import StepBatch


@dataclass(frozen=True)
class Precomputed:
    """What is computed once because it never changes."""

    image_features: np.ndarray | None = (
        None  # (n, d) embeddings of the training images, or (n, t, w) hidden states
    )
    text_features: feature_cache.TextFeatures | None = (
        None  # embeddings of the captions under a locked text tower
    )
    anchor_texts: list[str] | None = None  # general sentences, and
    anchor_embeddings: Tensor | None = None  # (len(sentences), d) what the base says of them
    base_image: np.ndarray | None = None  # (n, d) what the base says of the training images
    third_tower: np.ndarray | None = None  # (n, t) what a third tower says of them
    teachers: Mapping[str, tuple[feature_cache.TeacherFeatures, ...]] = field(
        default_factory=dict
    )  # by objective


class StepRange(NamedTuple):
    """The steps of one stage of a run: from `begin`, before `end`."""

    begin: int
    end: int


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained, on what."""

    recipe: Recipe
    model: DualEncoder
    stages: tuple[Stage, ...]
    factors: dict[str, float]  # on the learning rate, by weight: the largest of all stages
    terms: components.WeightedObjectives
    pairs: Pairs
    precomputed: Precomputed
    peak_rate: float  # peak learning rate
    identity: dict[str, Any]  # what a checkpoint must agree with before it may continue this job
    unusable: tuple[UnusableItem, ...] = ()  # pictures that could not be read when features were kept
    digests: Mapping[str, str] = field(default_factory=dict)  # by id: of the picture
    captions: Captions | None = None  # how texts become tokens, or the hidden states that are kept of them
    notes: tuple[str, ...] = ()  # what is kept and what is not, for the user
    validation: ValidationSet | None = None  # what is looked at on the way
    steps: StepRange | None = None  # the steps that are trained; None: all
    started: float | None = None  # when the run was asked for, on the monotonic clock; None: now
    checkpointed: frozenset[str] = frozenset()  # weights that learn before or after them: saved as they are


def total_steps(recipe: Recipe, pairs: int) -> int:
    """How many steps the epochs take; the last one may begin another epoch, so none is short."""
    return max(1, ceil(recipe.train.epochs * pairs / min(recipe.train.batch_size, pairs)))


def to_step_batch(setup: TrainingSetup, rows: Batch, at: int, device: torch.device) -> StepBatch:
    """The rows on the device, with what is kept, and this process's share of the step's general sentences."""
    kept, texts, anchors = setup.precomputed, rows.texts, None
    if kept.anchor_texts is not None and kept.anchor_embeddings is not None:
        all_drawn = anchor_texts.drawn_indices(at, setup.recipe.anchor_texts, setup.recipe.train.seed)
        mine = process_share(
            all_drawn, collectives.rank(), collectives.process_count(), "anchor_texts.per_step"
        )
        texts = [*texts, *(kept.anchor_texts[i] for i in mine)]
        anchors = kept.anchor_embeddings[mine].to(device)
    image, kept_image, index = rows.image, None, rows.index.numpy()
    if image is not None and rows.second_view is not None:
        image = {name: torch.cat([one, rows.second_view[name]]) for name, one in image.items()}
    if kept.image_features is not None:
        found = torch.from_numpy(kept.image_features[index])
        image, kept_image = ({"hidden": found}, None) if found.ndim > 2 else (None, found.to(device))
    return StepBatch(
        image=None if image is None else {k: v.to(device, non_blocking=True) for k, v in image.items()},
        image_embeddings=kept_image,
        texts=texts,
        text_embeddings=None
        if kept.text_features is None
        else kept.text_features.embeddings(rows.texts).to(device),
        group=rows.group.to(device),
        base_anchor_text=anchors,
        captions=setup.captions,
        extras=rows.extras.to(device),
        base_image=None if kept.base_image is None else _rows(kept.base_image, index, device),
        third_tower=None if kept.third_tower is None else _rows(kept.third_tower, index, device),
        teachers={
            name: tuple(
                Teacher(
                    _rows(one.image, index, device), one.text.embeddings(rows.texts).to(device), one.scale
                )
                for one in teachers
            )
            for name, teachers in kept.teachers.items()
        },
    )


def _rows(kept: np.ndarray, index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(kept[index]).to(device)


def precision(recipe: Recipe) -> str:
    """bf16 autocast where the device has it; weights, logits and loss stay fp32 either way."""
    if recipe.train.precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return "bf16" if recipe.train.precision == "bf16" else "no"
