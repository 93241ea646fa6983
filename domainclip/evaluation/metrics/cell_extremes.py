"""The worst of several cells of a set and the gap between them, and what both are by luck."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.evaluation.metrics.subset_metric import SubsetMetric
from domainclip.evaluation.statistics import aggregates

_DRAWS = 100  # permutations of groups over cells
# The indices of a cell in the scores, and the aggregate of its metric.
CellMetric = tuple[np.ndarray, aggregates.Aggregate]


def over_cells(
    scores: np.ndarray, weights: np.ndarray, tables: Sequence[Sequence[CellMetric]], worst: bool
) -> np.ndarray:
    """(r,) the metric of the worst cell of all tables, or the largest gap within one of them."""
    extremes = []
    for parts in tables:
        each = np.stack([aggregate(scores[places], weights[:, places]) for places, aggregate in parts])
        low = np.where(np.isnan(each), np.inf, each).min(axis=0)
        high = np.where(np.isnan(each), -np.inf, each).max(axis=0)
        extremes.append(low if worst else high - low)
    values = np.min(extremes, axis=0) if worst else np.max(extremes, axis=0)
    return np.where(np.isinf(values), np.nan, values)


def by_luck(
    metric_on_cells: SubsetMetric, cells: Sequence[np.ndarray], groups: np.ndarray
) -> tuple[float, float]:
    """The mean worst cell and the mean gap when groups are assigned to cells of these sizes at random."""
    inside = np.concatenate(cells)
    names, member = np.unique(groups[inside], return_inverse=True)
    cell = np.zeros(len(names), dtype=int)
    ends = np.cumsum([len(places) for places in cells])
    cell[member] = np.searchsorted(ends, np.arange(len(inside)), side="right")
    rng = np.random.default_rng(0)
    everything = np.ones((1, len(metric_on_cells.scores)))
    drawn = []
    for _ in range(_DRAWS):
        permuted = rng.permutation(cell)[member]
        parts = [inside[permuted == i] for i in range(len(cells)) if (permuted == i).any()]
        tables: list[list[CellMetric]] = [
            [(places, metric_on_cells.aggregate_on(places)) for places in parts]
        ]
        drawn.append(
            [over_cells(metric_on_cells.scores, everything, tables, worst)[0] for worst in (True, False)]
        )
    worst, gap = np.nanmean(drawn, axis=0).tolist()
    return worst, gap
