"""The validation items by which class scores are chosen: their labels, and the prompts of the classes.

Shapes: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from domainclip.data.cards import Prompts
from domainclip.data.corpus import Corpus
from domainclip.errors import DataError
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.metrics.labels import label_matrix


@dataclass(frozen=True)
class LabelledItems:
    """What scores are compared with."""

    items: Dataset  # n, whose images can be read
    classes: Mapping[str, Prompts]  # as zero-shot classification scores them
    labels: np.ndarray  # (n, c) of 1, 0 and NaN
    multi_label: bool

    @property
    def can_choose(self) -> bool:
        """Whether some item has a class; where classes exclude each other, there must be two."""
        return (self.multi_label or len(self.classes) > 1) and bool((self.labels == 1).any())


def labelled_validation(encoder: CachedEncoder, corpus: Corpus) -> LabelledItems:
    """The readable items of the validation split.

    Raises: DataError when none of its images can be read.
    """
    items = readable_items(encoder, corpus.splits["validation"], "validation")
    classes, multi_label = corpus.classes, corpus.card.multi_label
    if not multi_label:
        classes = {name: Prompts(positive=prompts.positive) for name, prompts in classes.items()}
    return LabelledItems(items, classes, label_matrix(items, list(classes)), multi_label)


def readable_items(encoder: CachedEncoder, items: Dataset, split: str) -> Dataset:
    """The items of a split whose images can be read, encoded.

    Raises: DataError when there is none.
    """
    readable = encode_images([encoder], items)
    if not len(readable):
        raise DataError(f"the {split} split: none of {len(items)} images can be read: check the files")
    return readable
