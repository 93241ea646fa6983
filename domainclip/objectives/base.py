"""The words that all rooms share: one batch, one evaluation set, and the five kinds of part.

Legend: b pairs of a (global) batch, d embedding width, n items, r bootstrap resamples.

A part is one file and one class in it, a frozen keyword-only dataclass whose annotated fields are
its options; `citation` names its source, and `models`, where there is one, the options that name folders or
Hub ids, which a recipe may name only under its roots. Parts of one kind never import each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    pass
    pass
    pass


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


@runtime_checkable
class Valuing(Protocol):
    """An objective that wants a number of each pair: it needs "value", from this key of the item's meta."""

    column: str


@runtime_checkable
class Ringing(Protocol):
    """An objective that can have the pairs of other processes come by, and needs no optional view then.

    When all objectives of a run can, nothing is gathered, and views are `apart`.
    """

    @property
    def rings(self) -> bool:
        """Whether it can, with these options."""


@runtime_checkable
class Taught(Protocol):
    """An objective that learns from other models: it needs "teachers", folders or Hub ids."""

    teachers: list[str]


@runtime_checkable
class Fitting(Protocol):
    """An objective that not every width of the embeddings suits."""

    def fits(self, width: int) -> None:
        """Raises: RecipeError when it cannot work on embeddings of this width."""


@runtime_checkable
class Objective(Protocol):
    """One term of the loss. Lives in objectives/. One in the place of a family's loss names it: `trains`."""

    citation: ClassVar[str]
    needs: ClassVar[frozenset[str]]  # names of the optional Views

    def __call__(self, views: Views) -> Tensor:
        """A scalar, in fp32."""
