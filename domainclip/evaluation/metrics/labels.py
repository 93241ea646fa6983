"""Which labels a set of items has, and which items have exactly one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import EvaluationSet


def class_names(data: EvaluationSet) -> list[str]:
    """The classes of the card, else those that the training split holds, in sorted order."""
    if data.classes:
        return sorted(data.classes)
    return sorted({label for labels in data.train["labels"] for label in labels} if data.train else ())


def single_label_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with exactly one class, and which one it is, from labels (n, c)."""
    rows = np.flatnonzero(np.nansum(labels, axis=1) == 1)
    return rows, np.nan_to_num(labels[rows]).argmax(axis=1)


def has_both_classes(labels: np.ndarray) -> np.ndarray:
    """(c,) whether a class has items with it and items without."""
    sides: np.ndarray = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return sides


def one_class(items: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items that hold exactly one of these classes, and which one, as places in `names`."""
    place = {name: i for i, name in enumerate(names)}
    held = [[place[label] for label in labels if label in place] for labels in items["labels"]]
    rows = np.array([row for row, classes in enumerate(held) if len(classes) == 1], dtype=int)
    return rows, np.array([held[row][0] for row in rows], dtype=int)


def several_classes(items: Dataset, names: Sequence[str]) -> np.ndarray:
    """(n, c) of 1 and 0, NaN where the item's meta names the class under `unknown_labels`."""
    labels = np.zeros((len(items), len(names)))
    place = {name: i for i, name in enumerate(names)}
    for row, (holding, meta) in enumerate(zip(items["labels"], items["meta"], strict=True)):
        labels[row, [place[name] for name in holding if name in place]] = 1.0
        unknown = json.loads(meta or "{}").get("unknown_labels") or []
        labels[row, [place[name] for name in unknown if name in place]] = np.nan
    return labels
