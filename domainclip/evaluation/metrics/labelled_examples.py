"""What several probes need besides scores: captions, samples, labelled examples, a first-found image.

Legend: n items, q queries, m candidates, c classes, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.errors import DataError
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.labels import several_classes
from domainclip.seeding import sample

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Examples:
    """Labelled images that a probe may fit on; never the measured ones."""

    features: np.ndarray  # (n, d)
    labels: np.ndarray  # (n, c) of 1 and 0, NaN where unknown
    ids: list[str]
    groups: list[str]

    def pick(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """Some of the examples."""
        ids, groups = [self.ids[i] for i in rows], [self.groups[i] for i in rows]
        return Examples(self.features[rows], self.labels[rows], ids, groups)

    def join(self, other: Examples) -> Examples:
        """These and the others."""
        return Examples(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            self.ids + other.ids,
            self.groups + other.groups,
        )


def sample_items(data: EvaluationSet, rows: Iterable[int], most: int, purpose: str) -> list[int]:
    """At most so many of the rows, in order; which ones depends on their ids alone."""
    ids = list(data.items["id"])
    candidates = sorted(set(rows))
    drawn = sample([ids[row] for row in candidates], most, purpose)
    return sorted(candidates[place] for place in drawn)


def labelled_examples(
    encoder: Encoder, items: Dataset | None, names: Sequence[str], most: int
) -> Examples | None:
    """At most so many readable items with their embeddings; None when there are none.

    They stand in an order that depends on their ids alone, so that what is fitted on them does too.
    """
    if items is None or not len(items):
        return None
    ids = list(items["id"])
    order = sample(ids, most, "examples")
    left = readable_items(encoder, items.select(order, keep_in_memory=True))
    if not len(left):
        return None
    features = encoder.images(left).astype(np.float64)
    return Examples(features, several_classes(left, names), list(left["id"]), list(left["group"]))


def readable_items(encoder: Encoder, items: Dataset) -> Dataset:
    """The items whose image can be decoded, embedded by now."""
    try:
        encoder.images(items)
    except DataError as error:
        left: Dataset | None = getattr(error, "readable", None)
        if left is None:
            raise
        return left
    return items
