"""How far an attribute gives a label away: Cramér's V, and a table of label frequencies by attribute.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Cramér's V of two categorical variables (n,), with the bias correction of Bergsma.

    Near 0 for independent ones, whatever their numbers of categories, and where one has a single category; 1
    where each determines the other. [doi:10.1016/j.jkss.2012.10.002]
    """
    table = _crosstab(first, second)
    n, (rows, columns) = table.sum(), table.shape
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    corrected = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    sides = [size - (size - 1) ** 2 / (n - 1) for size in (rows, columns)]
    return float(np.sqrt(min(1.0, corrected / max(min(sides) - 1, 1e-12))))


def _crosstab(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = np.unique(first, return_inverse=True)[1], np.unique(second, return_inverse=True)[1]
    width = int(b.max(initial=0)) + 1
    counts = np.bincount(a * width + b, minlength=(int(a.max(initial=0)) + 1) * width)
    return counts.reshape(-1, width).astype(float)


@dataclass(frozen=True)
class FrequencyTable:
    """Frequencies of labels by the levels of an attribute; an unknown level has those of the one above."""

    by_level: dict[tuple[Hashable, ...], np.ndarray]  # (c,) by the first k parts of an attribute; () is all

    @staticmethod
    def fit(attributes: Sequence[tuple[Hashable, ...]], labels: np.ndarray) -> FrequencyTable:
        """The table of n attributes, each of parts such as (source, acquisition), and labels (n, c).

        Labels are 1, 0, or NaN where unknown.
        """
        rows_of: dict[tuple[Hashable, ...], list[int]] = {}
        for row, parts in enumerate(attributes):
            for size in range(len(parts) + 1):
                rows_of.setdefault(parts[:size], []).append(row)
        overall = _means(labels, np.zeros(labels.shape[1]))
        return FrequencyTable({level: _means(labels[rows], overall) for level, rows in rows_of.items()})

    def predict(self, attributes: Sequence[tuple[Hashable, ...]]) -> np.ndarray:
        """(m, c) the frequencies of m attributes."""
        levels = ([parts[:size] for size in range(len(parts), -1, -1)] for parts in attributes)
        known = [next(level for level in candidates if level in self.by_level) for candidates in levels]
        return np.stack([self.by_level[level] for level in known])


def _means(labels: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """(c,) mean labels, and `unknown` where none is known."""
    count = (~np.isnan(labels)).sum(axis=0)
    return np.where(count, np.nansum(labels, axis=0) / np.maximum(count, 1), unknown)


def folds_of_groups(groups: Sequence[str], count: int = FOLDS) -> np.ndarray:
    """(n,) the fold of each item: groups whole, in random order with a fixed seed."""
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    folds: np.ndarray = (np.random.default_rng(0).permutation(len(names)) % count)[member]
    return folds


def cross_validated(
    attributes: Sequence[tuple[Hashable, ...]], labels: np.ndarray, groups: Sequence[str]
) -> np.ndarray:
    """(n, c) the frequencies for each item by a table of the other folds; NaN with fewer than two groups."""
    folds = folds_of_groups(groups)
    predicted = np.full(labels.shape, np.nan)
    for fold in np.unique(folds):
        inside, outside = (np.flatnonzero(folds == fold).tolist(), np.flatnonzero(folds != fold).tolist())
        if outside:
            table = FrequencyTable.fit([attributes[i] for i in outside], labels[outside])
            predicted[inside] = table.predict([attributes[i] for i in inside])
    return predicted
