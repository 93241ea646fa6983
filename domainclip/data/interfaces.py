"""Contracts of a corpus reader, of a curation, and of the encoder that curation and probes use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainclip.errors import DataError, ModelError
from domainclip.registry import Component

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, DatasetDict

    from domainclip.data.cards import Card
    from domainclip.data.quarantine import ReadLog
    from domainclip.data.streaming import Stream


class UnreadableImages(DataError):
    """Some images of a set cannot be decoded; `readable` are the other items, already encoded."""

    def __init__(self, lost: int, items: Dataset, readable: Dataset) -> None:
        super().__init__(f"{lost} of {len(items)} images cannot be read: measure the readable ones")
        self.readable = readable


class ClassScorer(ABC):
    """Class scores of a model that uses more than the class prompts: features of labelled items, for one."""

    @abstractmethod
    def rescored(self, images: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """(n, k) scores of image embeddings (n, d) for k classes, from those of their prompts (n, k).

        Unchanged where one of the classes is none of the scorer's.
        """


class Encoder(ABC):
    """A model that curation and probes use. Calls with equal arguments return the same cached array."""

    scale: float
    bias: float | None
    has_raw_texts: bool = False  # whether `raw_texts` exists
    has_patches: bool = False  # whether `patches` exists

    @property
    def scorer(self) -> ClassScorer | None:
        """How class scores are computed beside the prompts; None: by the prompts alone."""
        return None

    @property
    def has_captioner(self) -> bool:
        """Whether `write_captions` exists."""
        return False

    @abstractmethod
    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length, in the order of the items.

        Raises: UnreadableImages.
        """

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length."""

    def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32, not normalised: some protocols average such vectors.

        Raises: ModelError for an encoder that has none (`has_raw_texts`).
        """
        raise ModelError("this encoder has no text embeddings before normalisation: choose another preset")

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(n, rows, columns, d) float32 of unit length, one vector for each patch that the model receives.

        And (n, 4), the window of the image that the patches cover: left, top, right, bottom, in pixels.

        Raises: DataError when an image cannot be read; ModelError for an encoder without a grid of patches.
        """
        raise ModelError("this encoder has no grid of patches: leave localisation out")

    def write_captions(self, items: Dataset, beams: int = 1) -> list[str]:
        """A caption for each item, which the model writes.

        Raises: DataError when an image cannot be read; ModelError for an encoder without a captioner.
        """
        raise ModelError("this encoder has no captioner: train one with the objective captioning")


class CorpusReader(Component, ABC):
    """Reads a source that a card describes into the standard columns. One file of data/readers/ each."""

    @property
    def streaming(self) -> bool:
        """Whether the training split may be a stream: then `open_stream` is called after `read`."""
        return False

    def check_source(self, card: Card, path: Path | str) -> None:
        """Refuse a path that does not exist, or columns that the source has not, before anything is loaded.

        Only names and headers are looked at, in a fraction of a second; `read` finds whatever else is wrong.

        Raises: DataError.
        """
        if not Path(path).exists():
            raise DataError(f"{path}: no such file or folder: check corpus.path")

    def source_files(self, card: Card, path: Path | str) -> list[Path] | None:
        """All files that `read` reads besides those of the images: a change of one means to read again.

        None: they are not known, and every command reads the corpus.
        """
        return None

    @abstractmethod
    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """The splits train, validation and test, with the columns of `data.schema.COLUMNS`.

        Guesses, and rows that cannot be used, go into the log. Of a training split that is a stream, it
        returns a first sample.

        Raises: DataError with file, row and column.
        """

    def open_stream(self, card: Card, path: Path | str, log: ReadLog) -> Stream | None:
        """The training split as a stream, which is never held whole; None: it is what `read` returned."""
        return None


class Curation(Component, ABC):
    """Selects or changes the training items, never measured ones. One file of data/curation/ each."""

    @property
    def needs(self) -> frozenset[str]:
        """{"base"} when it uses embeddings of the base; then the image of every item can be read."""
        return frozenset()

    @abstractmethod
    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The training items: some of them, or all with other captions; the same columns.

        `base` is the frozen base where `needs` names it, else None.
        """

    def reasons(self, items: Dataset, base: Encoder | None = None) -> Sequence[str]:
        """(n,) why each item is left out, in a few words without its values; "" for an item that stays.

        Of the same items as the call. Empty for a curation with one reason, which its name gives.
        """
        return ()


class TrainingSelection(Curation):
    """A curation that chooses, anew every so many steps, the items that the next batches are drawn from."""

    every: int  # steps from one choice to the next

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The same items."""
        return items

    @abstractmethod
    def metadata_texts(self, classes: Mapping[str, Sequence[str]]) -> list[str]:
        """The texts that captions are compared with, from the prompts of each class of the corpus.

        Raises: DataError when there are none.
        """

    @abstractmethod
    def choose(self, similarity: np.ndarray, least: int) -> np.ndarray:
        """The sorted rows (k,) of the chosen items, at least `least` of them where there are as many.

        `similarity` (n,) is the highest cosine of a caption of each item and one of the texts.
        """


class BatchOrdering(Curation):
    """A curation that decides which items share a batch: one stratum, as far as it reaches."""

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The same items."""
        return items

    @abstractmethod
    def strata(self, items: Dataset, base: Encoder | None = None) -> np.ndarray:
        """(n,) int64, the stratum of each item."""

    def repeats(self, items: Dataset) -> np.ndarray | None:
        """(n,) int64, how often an epoch shows each item, 1 or more; None: each once."""
        return None
