"""Contract of an objective: one batch in, one term of the loss out.

Legend: b pairs of a (global) batch, d embedding width, t width of another model, k further texts of a pair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from domainclip.data.text.training_pair import TrainingPair
from domainclip.registry import Component

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Views:
    """One batch, over all processes, as both towers see it: all that an objective may look at."""

    image: Tensor  # (b, d) unit length
    text: Tensor  # (b, d) unit length
    scale: Tensor  # () inverse temperature
    bias: Tensor | None = None  # () sigmoid objectives only
    group: Tensor | None = None  # (b,) int64; pairs of one group are never each other's negatives
    # The pairs of this process; None: all. The loss is the mean over the processes of what a term gives on
    # each: a term may look at these rows only, or give the same everywhere.
    rows: slice | None = None
    # Only the pairs of this process are here, and those of the others come round; see `Ringing`.
    apart: bool = False
    # Computed only when an objective asks for them by name, in `needs`:
    prose: Tensor | None = None  # (m, d) embeddings of general sentences outside the domain
    anchor_prose: Tensor | None = None  # (m, d) the base's own embeddings of those sentences
    anchor_image: Tensor | None = None  # (b, d) the base's own embeddings of the images
    image_2: Tensor | None = None  # (b, d) a second, strongly augmented view of each image
    image_tokens: Tensor | None = None  # (b, n, d) unit length: a vector for each patch
    text_tokens: Tensor | None = None  # (b, l, d) unit length: one for each token, special ones left out
    text_mask: Tensor | None = None  # (b, l) bool: which of them there are
    labels: Tensor | None = None  # (b, c) bool: the classes that hold, of all classes of the corpus
    teachers: tuple[Teacher, ...] = ()  # in the order in which the objective names them
    third: Tensor | None = None  # (b, t) unit length: the images as a third, locked tower sees them
    heads: Tensor | None = None  # (2, d + t, d) learnable: for images and for texts, own and third's
    # What this one objective asked for, see `Asking` and `Valuing`:
    said: Tensor | None = None  # (b, k, d) embeddings of further texts of each pair
    said_mask: Tensor | None = None  # (b, k) bool: which of them there are
    value: Tensor | None = None  # (b,) fp32 a number of each pair, NaN where the corpus names none

    @property
    def own(self) -> slice:
        """`rows`, with all pairs written out."""
        return slice(0, len(self.image)) if self.rows is None else self.rows

    def truncate(self, width: int) -> Views:
        """The same batch in the first dimensions of the space, at unit length again; teachers keep theirs."""
        wide = ["image", "text", "prose", "anchor_prose", "anchor_image", "image_2"]
        wide += ["image_tokens", "text_tokens", "said"]
        found = {name: getattr(self, name) for name in wide}
        cut = {
            name: rows[..., :width] / rows[..., :width].norm(dim=-1, keepdim=True).clamp_min(1e-12)
            for name, rows in found.items()
            if rows is not None
        }
        return replace(self, **cut)


@dataclass(frozen=True)
class Teacher:
    """What another model, which learns nothing, says of the batch; its width is its own."""

    image: Tensor  # (b, t) unit length
    text: Tensor  # (b, t) unit length
    scale: float  # its inverse temperature


@dataclass(frozen=True)
class ThirdTower:
    """A frozen image model whose embeddings are compared with both towers through learnable heads."""

    model: str | None  # a folder or Hub id; None: the image tower of the base
    initial_heads: Callable[[int, int, int], Tensor]  # (d, t, seed) -> (2, d + t, d), see `Views`
    learning_rate: float  # factor on the learning rate of the heads


@dataclass(frozen=True)
class ObjectiveInputs:
    """What a run looks up or computes for one objective."""

    value_column: str | None = None  # key of the items' meta that `Views.pair_value` is read from
    teachers: tuple[str, ...] = ()  # folders or Hub ids of the models in `Views.teachers`
    third_tower: ThirdTower | None = None


class Objective(Component, ABC):
    """One term of the loss. One file of objectives/ each."""

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
    def supports_ring(self) -> bool:
        """Whether it works on `local_only` views, with the pairs of other processes passed around a ring.

        When all objectives of a run do, nothing is gathered; such an objective needs no optional view.
        """
        return False

    @property
    def wrapped(self) -> dict[str, Objective]:
        """Objectives that this one applies to changed views, by name."""
        return {}

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
