"""Means over classes: the headline over those with enough items, and beside it, not judged, that over all.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics.labels import frequent_classes, has_frequent_class
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.statistics import aggregates

ALL = "_all_classes"  # ends the name of a mean that counts rare classes too

ColumnMean = Callable[..., np.ndarray]  # as aggregates.macro_auroc


def macro_accuracy(
    items: Dataset, rows: np.ndarray, hits: np.ndarray, truth: np.ndarray, guess: np.ndarray
) -> list[Metric]:
    """Macro accuracy of hits (n,) on items of classes `truth` (n,); chance is that of a guess (n,).

    Where no class has enough items, it is over all classes and not judged: within a class of one item there
    is no spread, so an interval would be far too narrow. Plain accuracy is the `headline` then.
    """
    counts = np.bincount(truth)
    frequent = frequent_classes(counts)
    metrics = []
    for name, counted in (("macro_accuracy", frequent[truth]), (f"macro_accuracy{ALL}", truth == truth)):
        aggregate = partial(aggregates.macro_mean, classes=truth[counted])
        chance = aggregates.point_estimate(aggregate, guess[counted])
        comparable = not name.endswith(ALL) and has_frequent_class(counts)
        metrics.append(
            metric(name, items, rows[counted], hits[counted], aggregate, chance, comparable=comparable)
        )
    return metrics[:1] if frequent[truth].all() else metrics


def headline(truth: np.ndarray) -> str:
    """The headline metric of a classifier on items of classes `truth` (n,)."""
    return "macro_accuracy" if has_frequent_class(np.bincount(truth)) else "accuracy"


def macro_f1(
    items: Dataset, rows: np.ndarray, shares: np.ndarray, truth: np.ndarray, library_mean: bool
) -> list[Metric]:
    """Macro F1 of shares (n, c) of each class in the answers to items of classes `truth` (n,).

    `library_mean` adds that of scikit-learn and torchmetrics: over the classes that have items or answers.
    """
    counts = np.bincount(truth, minlength=shares.shape[1])
    means = {
        "macro_f1": np.flatnonzero(frequent_classes(counts)),
        f"macro_f1{ALL}": np.flatnonzero(counts),
        "macro_f1_as_scikit_learn": np.arange(len(counts)),
    }
    if len(means["macro_f1"]) == len(means[f"macro_f1{ALL}"]):
        del means[f"macro_f1{ALL}"]
    if not library_mean:
        del means["macro_f1_as_scikit_learn"]
    guess = np.full(shares.shape, 1 / shares.shape[1])
    metrics = []
    for name, classes in means.items():
        aggregate = partial(aggregates.macro_f1, classes=truth, of=classes)
        chance = aggregates.point_estimate(aggregate, guess)
        comparable = name == "macro_f1" and has_frequent_class(counts)
        metrics.append(metric(name, items, rows, shares, aggregate, chance, comparable=comparable))
    return metrics


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


def library_areas(items: Dataset, scores: np.ndarray, labels: np.ndarray) -> list[Metric]:
    """Macro AUROC and AUPRC over all classes, as torchmetrics, and as it and scikit-learn, average them.

    A class without positives counts as 0, and for the AUROC one without negatives too; here such a class is
    left out. scikit-learn has no macro AUROC then. Scores and labels (n, c).
    """
    rows, prevalence = np.arange(len(items)), float(np.nanmean(labels, axis=0).mean())
    two_sided = ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).mean()
    return [
        metric(
            name,
            items,
            rows,
            scores,
            partial(aggregates.over_columns, partial(_or_zero, of=of), labels=labels),
            chance,
            comparable=False,
        )
        for name, of, chance in (
            ("macro_auroc_as_torchmetrics", aggregates.auroc, 0.5 * float(two_sided)),
            ("macro_auprc_as_scikit_learn", aggregates.average_precision, prevalence),
        )
    ]


def _or_zero(
    scores: np.ndarray, weights: np.ndarray, labels: np.ndarray, of: Callable[..., np.ndarray]
) -> np.ndarray:
    """(r,) an area under a curve, 0 where it is undefined."""
    areas: np.ndarray = np.nan_to_num(of(scores, weights, labels))
    return areas
