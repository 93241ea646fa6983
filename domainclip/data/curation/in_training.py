"""Curation in training: pairs whose caption is near to texts about the task, chosen anew as the model learns.

Legend: n items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import TrainingSelection
from domainclip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class InTraining(TrainingSelection):
    """Items whose caption has a cosine above `threshold` with a text about the task: CiT. [arXiv:2301.02241]

    The metadata are the prompts of the classes, or `metadata`. Every `every` steps the captions of all items
    are encoded by the model as it is then, and the batches that follow are drawn from the items that pass; of
    too few, the most similar `min_fraction` of all items stay, as in CiT. Where CiT draws from a pool that is
    never seen whole, here all training items are compared at once. The choice is saved in each checkpoint, so
    a resumed run ends bit-equal. What an epoch is stays as it is: so many pairs as the corpus has. Costs one
    pass of the text tower over the captions each time; nothing is gained on a corpus that is about the task
    alone.
    """

    citation: ClassVar[str] = "arXiv:2301.02241"

    every: Annotated[int, Field(ge=1)] = 100  # steps from one choice to the next
    threshold: Annotated[float, Field(ge=-1, lt=1)] = 0.55  # a cosine of two texts
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1  # the share of the items that stays at least
    metadata: tuple[str, ...] = ()  # texts about the task; empty: the prompts of all classes

    def metadata_texts(self, classes: Mapping[str, Sequence[str]]) -> list[str]:
        """The texts that captions are compared with.

        Raises: DataError without classes and texts.
        """
        texts = list(self.metadata) or [text for prompts in classes.values() for text in prompts]
        if not texts:
            raise DataError(
                "curation.in_training.metadata: the corpus has no classes: name texts about the task, as in "
                'curation.in_training.metadata=["a chest x-ray"]'
            )
        return list(dict.fromkeys(texts))

    def choose(self, similarity: np.ndarray, least: int) -> np.ndarray:
        """The sorted rows above the threshold; of fewer than the least, the most similar ones."""
        passing = np.flatnonzero(similarity > self.threshold)
        least = min(len(similarity), max(least, ceil(self.min_fraction * len(similarity))))
        if len(passing) >= least:
            return passing.astype(np.int64)
        return np.sort(np.argsort(-similarity, kind="stable")[:least]).astype(np.int64)
