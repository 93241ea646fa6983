"""Interfaces between corpora, curation and encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from datasets import Dataset, DatasetDict

from domainclip.data.cards import Card
from domainclip.data.quarantine import ReadLog


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


@runtime_checkable
class CorpusReader(Protocol):
    """Reads a source that a card describes into the standard columns. Lives in corpora/."""

    citation: ClassVar[str]

    def read(self, card: Card, path: Path | str, journal: ReadLog) -> DatasetDict:
        """Splits named train, validation and test; raises DataError with file, row and column.

        Guesses, and rows that cannot be used, go into the journal. A reader with a true option `streaming`
        also has `stream(card, path, journal)`: its training split as a data.streams.Stream, never held;
        `read` then gives a first sample of it.
        """


@runtime_checkable
class Curation(Protocol):
    """Chooses or changes what is trained on, never what is measured. Lives in curation/."""

    citation: ClassVar[str]

    @property
    def needs(self) -> frozenset[str]:
        """ "base" when it looks at embeddings; then every item's picture can be read."""

    def __call__(self, items: Dataset, base: Any) -> Dataset:
        """The training items: some of them, or all with other captions; the same columns.

        `base` is the Encoder of the frozen base where "base" is needed, else None.
        """


@runtime_checkable
class BatchOrdering(Protocol):
    """A curation that says which items are shown together: each batch from one stratum, as far as it goes."""

    def strata(self, items: Dataset, base: Any) -> np.ndarray:
        """(n,) int64."""
