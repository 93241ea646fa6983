"""Contract of an objective: one batch in, one term of the loss out.

Legend: b pairs of a (global) batch, d embedding width, t width of another model, k further texts of a pair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from domainclip.data.text.training_pair import TrainingPair
from domainclip.registry import Component

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from domainclip.data.batching.extras import SecondView
    from domainclip.data.batching.item_sources import SourceKind
    from domainclip.data.batching.matches import Matches, RowMask
    from domainclip.models.dual_encoder import DualEncoder


# The pairs of a batch that an objective tells a pair apart from: those of other groups; those of other groups
# that also have other labels; or none, since it reads each pair by itself.
Negatives = Literal["other_groups", "other_labels", "none"]
# What the gradient of a loss reaches: a tower, or weights of an objective that the saved model has.
Taught = Literal["image", "text", "own"]
PATCH_GRID = 4  # rows and columns that the pixels of a patch are averaged over in `Views.patch_pixels`
PATCH_NUMBERS = 3 * PATCH_GRID**2  # c of it


@dataclass(frozen=True)
class Views:
    """One batch over all processes, as both towers encode it: all that an objective can read."""

    image: Tensor  # (b, d) unit length
    text: Tensor  # (b, d) unit length
    scale: Tensor  # () inverse temperature
    bias: Tensor | None = None  # () of a sigmoid loss only
    matches: Matches | None = None  # which texts are right for which images, and so no negatives of them
    # The pairs of this process; None: all. The loss is the mean over the processes of an objective's values,
    # so an objective takes the mean over these rows only, or gives the same everywhere.
    local_rows: slice | None = None
    # Only the pairs of this process are here, and those of the others are passed around a ring; see
    # `Objective.supports_ring`.
    local_only: bool = False
    # Optional: computed only when an objective names them in `needs`.
    anchor_text: Tensor | None = None  # (m, d) embeddings of general-domain texts, outside the corpus
    base_anchor_text: Tensor | None = None  # (m, d) embeddings of the same texts by the base
    anchor_image: Tensor | None = None  # (n, d) embeddings of general images, outside the corpus
    base_anchor_image: Tensor | None = None  # (n, d) embeddings of the same images by the base
    base_scale: float = 100.0  # inverse temperature of the base, where there are anchor images
    base_image: Tensor | None = None  # (b, d) embeddings of the images by the base
    image_2: Tensor | None = None  # (b, d) a second view of each image, see `ObjectiveInputs.second_view`
    mixed_image: Tensor | None = (
        None  # (b, d) each image with a box of that of its partner, see `mixed_partner`
    )
    mixed_share: Tensor | None = None  # (b,) the share of the own image in it
    masked_tokens: Tensor | None = (
        None  # (b, n, d) unit length: patches of the image with some of them masked
    )
    patch_mask: Tensor | None = None  # (b, n) bool: the masked ones
    # (b, n, c) fp32: pixels of each patch of the whole image, averaged over a grid and normalised
    patch_pixels: Tensor | None = None
    momentum_tokens: Tensor | None = None  # (b, n, d) patches of the whole image, as `momentum_image`
    image_tokens: Tensor | None = None  # (b, n, d) unit length: one vector per patch
    text_tokens: Tensor | None = None  # (b, l, d) unit length: one per token, special ones left out
    text_mask: Tensor | None = None  # (b, l) bool: which of the tokens exist
    caption_ids: Tensor | None = None  # (b, l) int64: token ids of the caption's words; -1 behind the last
    labels: Tensor | None = None  # (b, c) bool: the classes that apply, of all classes of the corpus
    tags: Tensor | None = None  # (b, v) bool: the words that captions of the item name as present
    teachers: tuple[Teacher, ...] = ()  # in the order of `ObjectiveInputs.teachers`
    third_tower: Tensor | None = None  # (b, t) unit length: embeddings of the images by a third, frozen tower
    # (b, d) embeddings of the images and the texts by the moving average of the weights, without gradient
    momentum_image: Tensor | None = None
    momentum_text: Tensor | None = None
    # Optional, and of this objective alone; see `Objective.extra_texts`, and `value_column` and `source` of
    # `ObjectiveInputs`:
    extra_text: Tensor | None = None  # (b, k, d) embeddings of further texts of each pair
    extra_text_mask: Tensor | None = None  # (b, k) bool: which of these texts exist
    extra_caption: Tensor | None = None  # (b, k) int64: their numbers, as in `matches`
    # (b,) fp32, a number of each pair, or that of its source from 0; NaN where the corpus has none
    pair_value: Tensor | None = None
    # By name: weights of this objective alone, which learn; their moving averages, if it has a momentum;
    # and what its `update_memory` returned after the step before.
    own_weights: Mapping[str, Tensor] = field(default_factory=dict)
    own_averages: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def local_slice(self) -> slice:
        """`local_rows`, where None is written out as all pairs."""
        return slice(0, len(self.image)) if self.local_rows is None else self.local_rows

    @property
    def masks(self) -> tuple[RowMask | None, RowMask | None]:
        """The right texts of images, and the right images of texts; None: only those of the same pair."""
        return (None, None) if self.matches is None else (self.matches.right_texts, self.matches.right_images)

    @property
    def pair_mask(self) -> RowMask | None:
        """The pairs that a pair shares a right text with, where two images or two texts are compared."""
        return None if self.matches is None else self.matches.either

    def extra_matches(self, pair: Tensor, place: Tensor) -> Matches | None:
        """Which extra texts are right for which images, by the pair (n,) and the place (n,) of each text."""
        if self.matches is None or self.extra_caption is None:
            return None
        from domainclip.data.batching.matches import Matches, MatchKeys

        keys = self.matches.images
        return Matches(keys, MatchKeys(keys.group[pair], self.extra_caption[pair, place], keys.pool[pair]))

    def truncate(self, width: int) -> Views:
        """The same batch in the first dimensions of the space, at unit length again; teachers keep theirs."""
        embeddings = {
            "image": self.image,
            "text": self.text,
            "anchor_text": self.anchor_text,
            "base_anchor_text": self.base_anchor_text,
            "anchor_image": self.anchor_image,
            "base_anchor_image": self.base_anchor_image,
            "base_image": self.base_image,
            "image_2": self.image_2,
            "image_tokens": self.image_tokens,
            "text_tokens": self.text_tokens,
            "extra_text": self.extra_text,
            "momentum_image": self.momentum_image,
            "momentum_text": self.momentum_text,
            "mixed_image": self.mixed_image,
            "masked_tokens": self.masked_tokens,
            "momentum_tokens": self.momentum_tokens,
        }
        truncated = {
            name: rows[..., :width] / rows[..., :width].norm(dim=-1, keepdim=True).clamp_min(1e-12)
            for name, rows in embeddings.items()
            if rows is not None
        }
        return replace(self, **truncated)


@dataclass(frozen=True)
class Teacher:
    """Embeddings of the batch by another, frozen model."""

    image: Tensor  # (b, t) unit length
    text: Tensor  # (b, t) unit length
    scale: float  # its inverse temperature


@dataclass(frozen=True)
class ThirdTower:
    """A frozen image model whose embeddings of the images an objective reads."""

    model: str | None  # a folder or Hub id; None: the image tower of the base


@dataclass(frozen=True)
class TagWords:
    """Which words of the captions are tags."""

    count: int  # the most frequent ones, up to so many
    min_items: int  # training items whose captions name a tag


@dataclass(frozen=True)
class ItemSource:
    """Which columns of an item are its source, as the card names them."""

    by: SourceKind
    given_labels: bool  # whether sources are compared among items of equal labels only


@dataclass(frozen=True)
class Sizes:
    """What the own weights and the memory of an objective begin with."""

    width: int  # d
    third_tower: int = 0  # t of the third tower, where the objective has one
    classes: int = 0  # c of `Views.labels`, where some objective reads them
    tags: int = 0  # v of `Views.tags`, likewise
    # (n, d) embeddings of all training images by the base, where some objective reads "base_image"
    base_images: np.ndarray | None = None
    # Where some objective reads "caption_ids": those of all training captions, ascending, and the most of one
    vocabulary: np.ndarray | None = None  # (v,) int64
    caption_tokens: int = 0
    sources: int = 0  # of the training items, the most that some objective reads


@dataclass(frozen=True)
class ObjectiveInputs:
    """What a run looks up or computes for one objective."""

    value_column: str | None = None  # key of the items' meta that `Views.pair_value` is read from
    source: ItemSource | None = None  # what `Views.pair_value` has the number of, in the place of a column
    teachers: tuple[str, ...] = ()  # folders or Hub ids of the models in `Views.teachers`
    third_tower: ThirdTower | None = None
    # Share of the moving average of the weights that a step leaves unchanged; None: none is computed.
    momentum: float | None = None
    second_view: SecondView = "strong"  # the kind of `Views.image_2`
    tag_words: TagWords | None = None  # which words are the columns of `Views.tags`


class Objective(Component, ABC):
    """One term of the loss. One file of objectives/ each."""

    # How a corpus in which no pair has a further text comes to have some; part of a message.
    extra_texts_remedy: ClassVar[str] = (
        "list the column that holds some under columns.meta of the card, and name it here (rewrites: under "
        "captions.rewrites of the card)"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Names of the optional `Views` that the objective reads."""
        return frozenset()

    @property
    def inputs(self) -> ObjectiveInputs:
        """What the run provides for the views in `needs`."""
        return ObjectiveInputs()

    @property
    def replaces(self) -> str | None:
        """The loss of a family (contrastive, sigmoid) that it takes the place of; None: it adds."""
        return None

    @property
    def negatives(self) -> Negatives:
        """The negatives of a pair; a batch in which no pair has one teaches the objective nothing."""
        return "none" if self.replaces is None else "other_groups"

    @property
    def teaches(self) -> frozenset[Taught]:
        """The towers that learn from it; "own" as well where `add_to_model` saves weights of its own."""
        return frozenset({"image", "text"})

    @property
    def supports_ring(self) -> bool:
        """Whether it works on `local_only` views, with the pairs of other processes passed around a ring.

        When all objectives of a run do, nothing is gathered; such an objective needs no optional view.
        """
        return False

    @property
    def wrapped(self) -> dict[str, Objective]:
        """Objectives that this one applies to changed views, by name."""
        return {}

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of its own weights."""
        return 10.0

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """Its own weights at the start, by name: they learn with the model, and no saved model has them."""
        return {}

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """What it remembers before the first step, by name: without gradient, saved in each checkpoint."""
        return {}

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The memory after a step, a pure function of its views; the same on every process."""
        return dict(views.memory)

    def add_to_model(
        self, model: DualEncoder, weights: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> None:
        """Gives the trained model what is used after training of its own weights and memory: nothing."""

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Up to k further texts of a pair, none empty, for an objective that needs "extra_text".

        A pure function of the pair, whose `seed` decides every draw. Each distinct text is encoded once.
        """
        return []

    def check_model(self, width: int) -> None:
        """Raises: RecipeError when the objective cannot work on embeddings of this width."""

    @abstractmethod
    def __call__(self, views: Views) -> Tensor:
        """() fp32: the mean over the pairs of this process, or the same on every process."""
