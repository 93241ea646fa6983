"""Contract of a strategy: which weights learn, and how fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from domainclip.registry import Component

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from domainclip.data.cards import Prompts
    from domainclip.data.interfaces import Encoder
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.evidence_scorer import EvidenceScorer
    from domainclip.models.layers import Modality


@dataclass(frozen=True)
class InputRequirements:
    """What a strategy requires of the training pairs."""

    frames: int  # images shown per item
    max_tokens: int  # tokens of a caption that the model will read
    # "caption_embeddings": the base's embedding of a caption with the same labels stands for each image.
    image_source: Literal["images", "caption_embeddings"] = "images"


@dataclass(frozen=True)
class Stage:
    """A share of the steps, and the weights that learn in it."""

    share: float  # of all steps
    learning_rates: dict[str, float]  # factor on the learning rate by weight name; 0: frozen


@dataclass(frozen=True)
class SupportNeeds:
    """What a strategy that trains no weight of the model takes from the training split."""

    features: Literal["images", "captions", "pairs"]
    shots: int | None  # items of each class (of pairs: in all), drawn by their ids; None: all
    alphas: Sequence[float]  # weights of the evidence that are tried on the validation split
    multi_label: bool = True  # whether it works where several classes may hold together


@dataclass(frozen=True)
class SupportPairs:
    """The captions of the support images, one of each."""

    texts: np.ndarray  # (s, d) float32 of unit length
    group: np.ndarray  # (s,) int64: equal for items of one group
    caption: np.ndarray  # (s,) int64: equal for equal captions


@dataclass(frozen=True)
class Support:
    """The features that class scores are made of, by the base. Embeddings are of unit length."""

    classes: Sequence[str]
    features: np.ndarray  # (s, d) float32 of images, or of captions
    labels: np.ndarray  # (s, c) of 1, 0 and NaN, the classes of each image; (0, c) of captions and pairs
    class_texts: np.ndarray  # (c, d) float32, from the prompts of the classes
    scale: float  # inverse temperature of the base
    multi_label: bool
    pairs: SupportPairs | None = None  # where the needs name them; `features` are their images
    seed: int = 0  # of all draws


class Strategy(Component, ABC):
    """Which weights learn. One file of strategies/ each.

    A run calls `requirements`, `with_classes` and `build_model` while it loads its inputs, and `stages` once,
    when the base has been measured. One that names `support` trains no weight of the model: `class_scorers`
    is then called in the place of the training. Neither does an ensemble, of which `shares` are chosen.
    """

    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = None  # above it a run warns
    relabels: ClassVar[bool] = (
        False  # whether `relabelled` replaces captions and labels of the training items
    )

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The towers of which no weight learns, of any model; what no option decides is known later."""
        return frozenset()

    @property
    def support(self) -> SupportNeeds | None:
        """What `class_scorers` needs; None, the default: there are none."""
        return None

    @property
    def trains_weights(self) -> bool:
        """Whether weights are trained; by default where no class scores are computed instead."""
        return self.support is None

    @property
    def shares(self) -> Sequence[tuple[float, ...]]:
        """The shares of an ensemble's members to choose among on the validation split; empty: none."""
        return ()

    @property
    def joined_models(self) -> Sequence[str]:
        """Names of the models beside the base whose weights become part of the model; by default none."""
        return ()

    def class_scorers(self, support: Support) -> Sequence[EvidenceScorer]:
        """The scorers to choose among on the validation split, each at every α of `support`."""
        return ()

    def requirements(self, base: DualEncoder) -> InputRequirements:
        """What the training pairs must provide; those of the base by default."""
        return InputRequirements(base.frames, base.max_tokens)

    def with_classes(self, classes: Sequence[str]) -> Strategy:
        """The strategy for a corpus with these classes; the same by default."""
        return self

    def relabelled(self, items: Dataset, base: Encoder, classes: Mapping[str, Prompts]) -> Dataset:
        """The training items that are shown, with other captions and labels; the same by default.

        Raises: DataError when nothing could be learned from them.
        """
        return items

    def build_model(self, base: DualEncoder) -> DualEncoder:
        """The model that is trained, where that is another than the base; the base itself stays unchanged."""
        return base

    @abstractmethod
    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Prepares the model in place; the factor on the learning rate by weight name, 0 for a frozen one.

        Raises: RecipeError when the strategy does not suit the model.
        """

    def stages(self, model: DualEncoder) -> list[Stage]:
        """The stages of training in their order, whose shares sum to 1; by default one with all steps.

        Prepares the model in place, through `learning_rates`.
        """
        return [Stage(1.0, self.learning_rates(model))]


def tower_factors(image: float, text: float, scale: bool) -> list[tuple[str, float]]:
    """Patterns of weight names with their factors, as `DualEncoder.set_trainable` takes them."""
    return [("image/.*", image), ("text/.*", text), ("(scale|bias)/.*", float(scale))]


def towers_without(image: float, text: float) -> frozenset[Modality]:
    """The towers whose factor on the learning rate is 0."""
    towers: tuple[Modality, ...] = ("image", "text")
    return frozenset(tower for tower, factor in zip(towers, (image, text), strict=True) if not factor)


def max_learning_rates(stages: Sequence[Stage]) -> dict[str, float]:
    """The largest factor of each weight over all stages: above 0 for all that learns in any of them."""
    return {name: max(stage.learning_rates[name] for stage in stages) for name in stages[0].learning_rates}
