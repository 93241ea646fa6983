"""Means over classes: the headline over those with enough items, and beside it, not judged, that over all.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics.labels import frequent_classes
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.statistics import aggregates

ALL = "_all_classes"  # ends the name of a mean that counts rare classes too

ColumnMean = Callable[..., np.ndarray]  # as aggregates.macro_auroc


def macro_accuracy(
    items: Dataset, rows: np.ndarray, hits: np.ndarray, truth: np.ndarray, guess: np.ndarray
) -> list[Metric]:
    """Macro accuracy of hits (n,) on items of classes `truth` (n,); chance is that of a guess (n,)."""
    frequent = frequent_classes(np.bincount(truth))
    metrics = []
    for name, counted in (("macro_accuracy", frequent[truth]), (f"macro_accuracy{ALL}", truth == truth)):
        aggregate = partial(aggregates.macro_mean, classes=truth[counted])
        chance = aggregates.point_estimate(aggregate, guess[counted])
        comparable = not name.endswith(ALL)
        metrics.append(
            metric(name, items, rows[counted], hits[counted], aggregate, chance, comparable=comparable)
        )
    return metrics[:1] if frequent[truth].all() else metrics


def macro_area(
    name: str,
    items: Dataset,
    scores: np.ndarray,
    labels: np.ndarray,
    aggregate: ColumnMean,
    chance: np.ndarray,
    mean_of: Sequence[int],
    all_of: Sequence[int],
) -> list[Metric]:
    """The mean of an area under a curve over the classes `mean_of`, and over `all_of` where these are more.

    Scores and labels (n, c), chance (c,).
    """
    rows = np.arange(len(items))
    sides = [(name, list(mean_of)), (f"{name}{ALL}", list(all_of))]
    metrics = [
        metric(
            side,
            items,
            rows,
            scores[:, classes],
            partial(aggregate, labels=labels[:, classes]),
            float(chance[classes].mean()),
            comparable=not side.endswith(ALL),
        )
        for side, classes in sides
    ]
    return metrics[:1] if sides[0][1] == sides[1][1] else metrics
