"""Labelled training images of a probe, and samples of items that depend on their ids alone.

Legend: n items, c classes, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainclip.data.interfaces import Encoder, UnreadableImages
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.seeding import sample

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Examples:
    """Embeddings and labels of images that a probe may fit on; never the measured ones."""

    features: np.ndarray  # (n, d)
    labels: np.ndarray  # (n, c) of 1 and 0, NaN where unknown
    ids: list[str]
    groups: list[str]
    unreadable: int = 0  # items beside these whose image cannot be read

    def take(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """The examples at these rows."""
        ids, groups = [self.ids[i] for i in rows], [self.groups[i] for i in rows]
        return Examples(self.features[rows], self.labels[rows], ids, groups, self.unreadable)

    def join(self, other: Examples) -> Examples:
        """These examples followed by the others."""
        return Examples(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            self.ids + other.ids,
            self.groups + other.groups,
            max(self.unreadable, other.unreadable),  # parts of one set carry the same number
        )

    @property
    def lost(self) -> dict[str, int]:
        """The number of unreadable items under its name in a probe's details; empty where all can be read."""
        return {"unreadable_training_items": self.unreadable} if self.unreadable else {}


def sample_items(data: EvaluationSet, rows: Iterable[int], max_items: int, purpose: str) -> list[int]:
    """At most `max_items` of the rows, in order; the sample depends on their ids alone."""
    ids = list(data.items["id"])
    candidates = sorted(set(rows))
    drawn = sample([ids[row] for row in candidates], max_items, purpose)
    return sorted(candidates[i] for i in drawn)


def labelled_examples(
    encoder: Encoder, items: Dataset | None, names: Sequence[str], max_items: int
) -> Examples | None:
    """At most `max_items` items that can be read, with their embeddings; None when there are none.

    Their order depends on their ids alone, so that a fit on them does too.
    """
    if items is None or not len(items):
        return None
    ids = list(items["id"])
    order = sample(ids, max_items, "examples")
    readable = readable_items(encoder, items.select(order, keep_in_memory=True))
    if not len(readable):
        return None
    features = encoder.images(readable).astype(np.float64)
    labels, unreadable = label_matrix(readable, names), len(order) - len(readable)
    return Examples(features, labels, list(readable["id"]), list(readable["group"]), unreadable)


def readable_items(encoder: Encoder, items: Dataset) -> Dataset:
    """The items whose image can be decoded; their embeddings are cached afterwards."""
    try:
        encoder.images(items)
    except UnreadableImages as error:
        return error.readable
    return items
