"""Labels of a set of items: class names, label matrix, items with exactly one class."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import EvaluationSet


def class_names(data: EvaluationSet) -> list[str]:
    """The classes of the card, else the labels of the training split, sorted."""
    if data.classes:
        return sorted(data.classes)
    return sorted({label for labels in data.train["labels"] for label in labels} if data.train else ())


def single_label_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with exactly one class, and the index of that class, from labels (n, c)."""
    rows = np.flatnonzero(np.nansum(labels, axis=1) == 1)
    return rows, np.nan_to_num(labels[rows]).argmax(axis=1)


def has_both_classes(labels: np.ndarray) -> np.ndarray:
    """(c,) whether a class has both positive and negative items."""
    both: np.ndarray = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return both


def single_label_items(items: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items with exactly one of these classes, and the index of that class in `names`."""
    index = {name: i for i, name in enumerate(names)}
    known_labels = [[index[label] for label in labels if label in index] for labels in items["labels"]]
    rows = np.array([row for row, classes in enumerate(known_labels) if len(classes) == 1], dtype=int)
    return rows, np.array([known_labels[row][0] for row in rows], dtype=int)


def label_matrix(items: Dataset, names: Sequence[str]) -> np.ndarray:
    """(n, c) of 1 and 0; NaN where the item's meta lists the class under `unknown_labels`."""
    labels = np.zeros((len(items), len(names)))
    index = {name: i for i, name in enumerate(names)}
    for row, (present, meta) in enumerate(zip(items["labels"], items["meta"], strict=True)):
        labels[row, [index[name] for name in present if name in index]] = 1.0
        unknown = json.loads(meta or "{}").get("unknown_labels") or []
        labels[row, [index[name] for name in unknown if name in index]] = np.nan
    return labels
