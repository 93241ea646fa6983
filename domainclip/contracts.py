"""The words that all rooms share: one batch, one evaluation set, and the five kinds of part.

Legend: b pairs of a (global) batch, d embedding width, n items, r bootstrap resamples.

A part is one file and one class in it, a frozen keyword-only dataclass whose annotated fields are
its options; `citation` names its source. Parts of one kind never import each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, DatasetDict
    from torch import Tensor

    from domainclip.data.cards import Card, Prompts
    from domainclip.data.quarantine import Journal
    from domainclip.towers import Towers

# The columns of every corpus, whatever it was read from. `image` is {path, bytes}: one of the two is
# null. `views` are further pictures of the same item, alike: other projections, frames or slices of one
# study. `labels` are the classes that hold; `meta` is JSON, and holds only what the card lists.
COLUMNS = ("id", "image", "views", "texts", "language", "labels", "group", "meta")
SPLITS = ("train", "validation", "test")


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
    # Computed only when an objective asks for them by name, in `needs`:
    prose: Tensor | None = None  # (m, d) embeddings of general sentences outside the domain
    anchor_prose: Tensor | None = None  # (m, d) the base's own embeddings of those sentences

    @property
    def own(self) -> slice:
        """`rows`, with all pairs written out."""
        return slice(0, len(self.image)) if self.rows is None else self.rows


@dataclass(frozen=True)
class EvaluationSet:
    """The items that a probe measures on: one split of one corpus, with its card."""

    name: str  # as it stands in the report, "test" or "general"
    items: Dataset  # the columns above
    card: Card
    classes: dict[str, Prompts]  # what zero-shot chooses among; empty when the corpus has no classes
    # The other splits of the same corpus, for probes that fit something: never the measured items. None on
    # a set that is for evaluation only.
    train: Dataset | None = None
    validation: Dataset | None = None
    # What the ledger counts its readings under; empty for a set that nobody counts.
    fingerprint: str = ""  # of its corpus
    split: str = ""  # train, validation, test, or all


class Encoder(Protocol):
    """A model that is measured. Calls with equal arguments return the same kept array.

    One whose patches form a grid may also have `patches(items)`; see `TowersEncoder.patches`.
    """

    scale: float
    bias: float | None

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length, in the order of the items."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length."""


@dataclass(frozen=True)
class Metric:
    """One figure, kept as the per-item scores it is made of, so that it can be resampled.

    `aggregate(scores, weights)` takes the scores (n, ...) and bootstrap weights (r, n), how often each
    item was drawn, and gives the r values of the figure, NaN where it is undefined.
    """

    name: str
    ids: Sequence[str]  # (n,)
    groups: Sequence[str]  # (n,) what is resampled together: the patient, the object
    scores: np.ndarray  # (n, ...)
    aggregate: Callable[[np.ndarray, np.ndarray], np.ndarray]
    higher_is_better: bool = True
    chance: float | None = None  # what a model that knows nothing reaches
    # "share" lies between 0 and 1; "rank", "distance", "correlation", "cosine" and "ratio" do not.
    unit: str = "share"
    # False for what only describes, and for figures with a bias that grows with the noise: the worst of
    # several cells, a gap between them, a calibration error. Their difference is shown, and called nothing.
    judged: bool = True


@dataclass(frozen=True)
class Results:
    """What one probe found on one set; `details` is JSON and goes into the protocol box."""

    probe: str
    dataset: str
    metrics: list[Metric]
    primary: str  # the name of the metric that selects and headlines
    version: int
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # What the figures mean, in words, where that depends on the model: two meanings are not compared.
    meaning: str = ""


@runtime_checkable
class Corpus(Protocol):
    """Reads a source that a card describes into the standard columns. Lives in corpora/."""

    citation: ClassVar[str]

    def read(self, card: Card, path: Path | str, journal: Journal) -> DatasetDict:
        """Splits named train, validation and test; raises DataError with file, row and column.

        Guesses, and rows that cannot be used, go into the journal. A reader with a true option `streaming`
        also has `stream(card, path, journal)`: its training split as a data.streams.Stream, never held;
        `read` then gives a first sample of it.
        """


@runtime_checkable
class Curation(Protocol):
    """Chooses or changes what is trained on, never what is measured. Lives in curation/."""

    citation: ClassVar[str]

    def __call__(self, items: Dataset) -> Dataset:
        """The training items: some of them, or all with other captions; the same columns."""


@runtime_checkable
class Strategy(Protocol):
    """Says which weights learn. Lives in strategies/."""

    citation: ClassVar[str]

    def apply(self, towers: Towers) -> dict[str, float]:
        """Prepare the towers in place; the factor on the learning rate by weight name, 0 for locked."""


@runtime_checkable
class Objective(Protocol):
    """One term of the loss. Lives in objectives/."""

    citation: ClassVar[str]
    needs: ClassVar[frozenset[str]]  # names of the optional Views

    def __call__(self, views: Views) -> Tensor:
        """A scalar, in fp32."""


@runtime_checkable
class Probe(Protocol):
    """One measurement. Lives in probes/."""

    citation: ClassVar[str]
    version: ClassVar[int]

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> Results:
        """Per-item scores first, figures from them."""
