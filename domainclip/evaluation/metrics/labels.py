"""Labels of a set of items: class names, label matrix, items with exactly one class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from domainclip.data.files.row_labels import IMPLIED_LABELS, UNKNOWN_LABELS
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.results import MIN_ITEMS

if TYPE_CHECKING:
    from datasets import Dataset


def class_names(data: EvaluationSet) -> list[str]:
    """The classes of the card, else the labels of the training split, sorted."""
    if data.classes:
        return sorted(data.classes)
    return sorted({label for labels in data.train["labels"] for label in labels} if data.train else ())


def names_to_show(data: EvaluationSet, names: Sequence[str]) -> list[str]:
    """The names of the classes as a report may show them: a label outside the card's may be a person's."""
    if data.card.names_may_show or set(names) <= set(data.classes):
        return list(names)
    return [name if name in data.classes else f"class {i + 1}" for i, name in enumerate(names)]


def single_label_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with exactly one class, and the index of that class, from labels (n, c)."""
    rows = np.flatnonzero(np.nansum(labels, axis=1) == 1)
    return rows, np.nan_to_num(labels[rows]).argmax(axis=1)


def has_both_classes(labels: np.ndarray) -> np.ndarray:
    """(c,) whether a class has both positive and negative items."""
    both: np.ndarray = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return both


def frequent_classes(counts: np.ndarray) -> np.ndarray:
    """(c,) the classes of a macro mean, by their number of items (c,): those with enough items to measure.

    A class of one item weighs as much as one of a hundred, and a resample that misses it measures another
    mean. Where no class has enough, all classes that have items.
    """
    enough: np.ndarray = counts >= MIN_ITEMS
    return enough if enough.any() else counts > 0


def has_frequent_class(counts: np.ndarray) -> bool:
    """Whether any class has enough items (c,) for a macro mean that is judged."""
    return bool((counts >= MIN_ITEMS).any())


def groups_with_and_without(labels: np.ndarray, groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """(c,) the smaller number of groups with and without each class; labels (n, c), NaN where unknown."""
    names = np.asarray(groups, dtype=str)
    sides = [min(len(set(names[column == truth])) for truth in (1, 0)) for column in labels.T]
    return np.array(sides, dtype=int)


def single_label_items(items: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items with exactly one of these classes, and the index of that class in `names`."""
    index = {name: i for i, name in enumerate(names)}
    known_labels = [[index[label] for label in labels if label in index] for labels in items["labels"][:]]
    rows = np.array([row for row, classes in enumerate(known_labels) if len(classes) == 1], dtype=int)
    return rows, np.array([known_labels[row][0] for row in rows], dtype=int)


def label_matrix(items: Dataset, names: Sequence[str], implied: bool = False) -> np.ndarray:
    """(n, c) of 1 and 0; NaN where the item's meta lists the class under `unknown_labels`.

    `implied`: 1 also for the classes that follow from that of an item with one class, which its meta lists.
    """
    labels = np.zeros((len(items), len(names)))
    index = {name: i for i, name in enumerate(names)}
    for row, (present, meta) in enumerate(zip(items["labels"][:], items["meta"][:], strict=True)):
        labels[row, [index[name] for name in present if name in index]] = 1.0
        lists = json.loads(meta or "{}")
        for key, value in ((UNKNOWN_LABELS, np.nan), (IMPLIED_LABELS, 1.0 if implied else 0.0)):
            labels[row, [index[name] for name in lists.get(key) or () if name in index]] = value
    return labels
