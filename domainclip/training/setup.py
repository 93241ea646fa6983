"""The setup of a training, the inputs of each of its stages, and the batch of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.config.recipe import AnchorTexts
from domainclip.config.training import TrainConfig
from domainclip.data.batching.batch import Batch
from domainclip.data.batching.order import process_share
from domainclip.data.batching.pairs import Pairs
from domainclip.data.interfaces import TrainingSelection
from domainclip.data.quarantine import UnusableItem
from domainclip.data.text import anchor_texts
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.base import Sizes, Teacher
from domainclip.strategies.base import Stage
from domainclip.training import feature_cache
from domainclip.training.anchor_images import AnchorFeatures, AnchorImageSource
from domainclip.training.dropped_patches import with_patches_read
from domainclip.training.further_images import FurtherImages, add_further_images
from domainclip.training.microbatches import Captions
from domainclip.training.validation import ValidationSet
from domainclip.training.views import StepBatch

_FEW_STEPS = 50


@dataclass(frozen=True)
class Precomputed:
    """Outputs of frozen models and layers, computed once."""

    image_features: np.ndarray | None = (
        None  # (n, d) embeddings of the training images, or (n, t, w) hidden states
    )
    text_features: feature_cache.TextFeatures | None = (
        None  # embeddings of the captions under a locked text tower
    )
    anchor_texts: list[str] | None = None  # general-domain texts, and
    anchor_embeddings: Tensor | None = None  # (len(sentences), d) their embeddings by the base
    anchor_images: AnchorFeatures | None = None  # general images
    base_image: np.ndarray | None = None  # (n, d) embeddings of the training images by the base
    vocabulary: np.ndarray | None = None  # (v,) token ids of the training captions, ascending
    third_tower: np.ndarray | None = None  # (n, t) their embeddings by a third tower
    teachers: Mapping[str, tuple[feature_cache.TeacherFeatures, ...]] = field(
        default_factory=dict
    )  # by objective


class StepRange(NamedTuple):
    """The steps of one stage of a run: from `begin`, before `end`."""

    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Everything that training needs, complete before its first step."""

    settings: TrainConfig
    strategy: str  # its name
    model: DualEncoder  # prepared by the strategy
    stages: tuple[Stage, ...]
    factors: dict[str, float]  # on the learning rate, by weight: the largest of all stages
    objectives: WeightedObjectives
    peak_rate: float  # learning rate
    pairs: Pairs
    digests: Mapping[str, str]  # by id: of the image
    precomputed: Precomputed  # before any stage
    anchor_settings: AnchorTexts
    anchor_images: AnchorImageSource | None = None  # general images, where an objective asks for them
    notes: tuple[str, ...] = ()  # what is cached and what is not, for the user
    validation: ValidationSet | None = None  # measured during training; None: nothing
    identity: Mapping[str, Any] = field(default_factory=dict)  # a checkpoint must agree with it to be resumed
    selection: TrainingSelection | None = None  # chooses pairs while training; None: all pairs are shown
    selection_texts: tuple[str, ...] = ()  # that it compares captions with
    interpolates: bool = False  # whether the weights are interpolated with those before training
    checkpoint: Path | None = None  # that training continues from; None: it starts at its first step

    @property
    def epochs(self) -> float:
        """Passes over the pairs."""
        return self.settings.epochs_of(round(self.pairs.epoch_pairs))

    @property
    def needs_start_weights(self) -> bool:
        """Whether the weights before the first step are needed later."""
        return self.interpolates or self.settings.projection_decay is not None

    @property
    def sizes(self) -> Sizes:
        """What the own weights and the memory of objectives begin with."""
        spec, outputs = self.pairs.extra_spec, self.precomputed
        third = 0 if outputs.third_tower is None else outputs.third_tower.shape[1]
        return Sizes(
            width=self.model.width,
            third_tower=third,
            classes=len(spec.classes),
            tags=len(spec.tags),
            base_images=outputs.base_image,
            vocabulary=outputs.vocabulary,
            caption_tokens=self.model.max_tokens,
            sources=max((len(numbers.numbers) for numbers in spec.sources.values()), default=0),
        )

    @property
    def total_steps(self) -> int:
        """Steps of all epochs; the last may begin another epoch, so that no batch is short."""
        pairs, size = self.pairs, min(self.settings.batch_size, len(self.pairs))
        return max(1, ceil(self.epochs * pairs.epoch_pairs / size))

    @property
    def advice(self) -> str:
        """A line for a run of few steps; empty for any other."""
        steps = self.total_steps
        if steps >= _FEW_STEPS:
            return ""
        epochs = ceil(self.epochs * 2 * _FEW_STEPS / steps)
        return f"{steps} steps are few: train.epochs={epochs} makes about {2 * _FEW_STEPS}"

    @property
    def weight_counts(self) -> tuple[int, int]:
        """How many numbers are trained, of how many in all weights."""
        sizes = {name: weight.numel() for name, weight in self.model.weights().items()}
        return sum(n for name, n in sizes.items() if self.factors[name] > 0), sum(sizes.values())

    @property
    def summary(self) -> str:
        """`lora: 98,305 of 22,500,000 weights learn (0.4 %)`."""
        learning, total = self.weight_counts
        return f"{self.strategy}: {learning:,} of {total:,} weights learn ({learning / total:.1%})"

    def stage_inputs(
        self, steps: StepRange | None = None, factors: dict[str, float] | None = None
    ) -> StageInputs:
        """The inputs of some steps, by default all, in which some weights learn; nothing is cached yet."""
        return StageInputs(
            setup=self,
            steps=steps or StepRange(0, self.total_steps),
            factors=factors or self.factors,
            pairs=self.pairs,
            precomputed=self.precomputed,
            notes=self.notes,
            unusable=() if (anchors := self.precomputed.anchor_images) is None else anchors.unusable,
        )


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What one stage trains on: the setup, and whatever its frozen layers allow to compute once."""

    setup: TrainingSetup
    steps: StepRange
    factors: dict[str, float]  # on the learning rate, by weight, in this stage
    pairs: Pairs  # without pixels where image features are cached
    precomputed: Precomputed
    captions: Captions | None = None  # how texts become tokens, or their cached hidden states
    unusable: tuple[UnusableItem, ...] = ()  # images that could not be read when features were cached
    start_weights: Mapping[str, Tensor] | None = None  # before the first step, where something needs them
    notes: tuple[str, ...] = ()  # of the setup, and what is cached in this stage or why it is not


def to_step_batch(stage: StageInputs, rows: Batch, at: int, device: torch.device) -> StepBatch:
    """Move a batch to the device, and add cached features and this process's share of the anchors.

    Images stay in main memory: the step moves those of a micro-batch when it encodes them.
    """
    stored, texts, anchors = stage.precomputed, rows.texts, None
    if stored.anchor_texts is not None and stored.anchor_embeddings is not None:
        all_drawn = anchor_texts.drawn_indices(at, stage.setup.anchor_settings, stage.setup.settings.seed)
        mine = process_share(
            all_drawn, collectives.rank(), collectives.process_count(), "anchor_texts.per_step"
        )
        texts = [*texts, *(stored.anchor_texts[i] for i in mine)]
        anchors = stored.anchor_embeddings[mine].to(device)
    index = rows.index.numpy()
    anchor_rows = _anchor_rows(stage, at)
    further, kept_image = _images(stage, rows, at, anchor_rows)
    image = None if further is None else further.image
    return StepBatch(
        image=image,
        image_embeddings=_moved(kept_image, device),
        texts=texts,
        text_embeddings=None
        if stored.text_features is None
        else stored.text_features.embeddings(rows.texts).to(device),
        keys=rows.keys.map(lambda key: key.to(device)),
        base_anchor_text=anchors,
        base_anchor_image=None
        if stored.anchor_images is None
        else stored.anchor_images.embeddings_of(anchor_rows, device),
        base_scale=100.0 if stored.anchor_images is None else stored.anchor_images.scale,
        captions=stage.captions,
        extras=rows.extras.to(device),
        groups=() if further is None else further.groups,
        mixed_share=None if further is None else _moved(further.share, device),
        patch_mask=None if further is None else _moved(further.patch_mask, device),
        patch_pixels=None if further is None else _moved(further.patch_pixels, device),
        base_image=None if stored.base_image is None else _rows(stored.base_image, index, device),
        caption_ids=_caption_ids(stage, rows.texts, device),
        third_tower=None if stored.third_tower is None else _rows(stored.third_tower, index, device),
        teachers={
            name: tuple(
                Teacher(
                    _rows(one.image, index, device), one.text.embeddings(rows.texts).to(device), one.scale
                )
                for one in teachers
            )
            for name, teachers in stored.teachers.items()
        },
    )


def _images(
    stage: StageInputs, rows: Batch, at: int, anchor_rows: list[int]
) -> tuple[FurtherImages | None, Tensor | None]:
    """The input of the image tower, or the embeddings of the pairs where the tower is precomputed whole."""
    setup, stored = stage.setup, stage.precomputed
    if stored.image_features is not None:
        found = torch.from_numpy(stored.image_features[rows.index.numpy()])
        if found.ndim == 2:
            return None, found
        further = FurtherImages({"hidden": found})
    elif rows.image is not None:
        further = add_further_images(rows, setup.objectives.needs, setup.model, setup.settings.seed, at)
    else:
        return None, None
    image = further.image
    if stored.anchor_images is not None:
        more = stored.anchor_images.images(anchor_rows, image)
        image = {name: torch.cat([one, more[name]]) for name, one in image.items()}
    pairs, groups = rows.index.tolist(), len(further.groups)
    image = with_patches_read(image, setup.model, setup.settings.seed, at, pairs, groups, anchor_rows)
    return replace(further, image=image), None


def _caption_ids(stage: StageInputs, texts: list[str], device: torch.device) -> Tensor | None:
    if "caption_ids" not in stage.setup.objectives.needs:
        return None
    return stage.setup.model.text_tokenizer.word_ids(texts).to(device)


def _moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _anchor_rows(stage: StageInputs, at: int) -> list[int]:
    """The anchor images of this process in the step."""
    anchors = stage.precomputed.anchor_images
    if anchors is None:
        return []
    drawn = anchors.source.drawn_rows(at, stage.setup.settings.seed)
    return process_share(drawn, collectives.rank(), collectives.process_count(), "anchor_images.per_step")


def _rows(stored: np.ndarray, index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(stored[index]).to(device)
