"""Metrics of each class of a classifier that gives one class to every item.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics import macro, operating_points, results, zero_shot_metrics
from domainclip.evaluation.metrics.labels import frequent_classes, groups_with_and_without
from domainclip.evaluation.metrics.operating_points import Counts, Rate
from domainclip.evaluation.statistics import aggregates

_MOST_CLASSES = 30  # whose precision, F1 and AUROC have intervals: each costs as much as a whole metric


def recalls(
    items: Dataset,
    names: Sequence[str],
    rows: np.ndarray,
    hits: np.ndarray,
    truth: np.ndarray,
    chance: np.ndarray,
) -> list[Metric]:
    """The share of right answers to the items of each class, by hits (n,) and truth (n,); chance (c,)."""
    return [
        results.metric(
            f"recall/{names[i]}",
            items,
            rows[truth == i],
            hits[truth == i],
            aggregates.mean,
            float(chance[i]),
        )
        for i in np.flatnonzero(np.bincount(truth) >= results.MIN_ITEMS).tolist()
    ]


def answer_rates(
    items: Dataset,
    names: Sequence[str],
    rows: np.ndarray,
    shares: np.ndarray,
    truth: np.ndarray,
    prevalence: Mapping[str, float],
) -> list[Metric]:
    """Precision and F1 of each class, as descriptions: an answer more for a class is one less for another.

    Shares (n, c) of each class in the answer, truth (n,). A stated prevalence adds predictive values at it.
    """
    metrics: list[Metric] = []
    measured = items.select(rows, keep_in_memory=True)
    for i in _largest_classes(np.bincount(truth, minlength=len(names))):
        labels, guess = (truth == i).astype(float), 1 / len(names)
        own = float(labels.mean())
        rates: dict[str, tuple[Rate, float | None]] = {
            "precision": (Counts.precision, own),
            "f1": (Counts.f1, 2 * own * guess / (own + guess)),
        }
        rates |= operating_points.at_stated_prevalence(prevalence.get(names[i]))
        metrics += operating_points.rates_of_class(measured, names[i], shares[:, i, None], labels, rates)
    return metrics


def one_against_others(
    items: Dataset, names: Sequence[str], rows: np.ndarray, odds: np.ndarray, labels: np.ndarray
) -> list[Metric]:
    """AUROC of each class against all others, and its mean; odds (n, c) order the items of labels (n, c).

    Of two classes the AUROC is one and the same; they have the sensitivity at a given specificity too.
    """
    measured, counts = items.select(rows, keep_in_memory=True), labels.sum(axis=0).astype(int)
    present = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if not len(present) or len(present) > _MOST_CLASSES:
        return []
    sides = groups_with_and_without(labels[:, present], measured["group"])
    mean_of = present[frequent_classes(sides)].tolist()
    metrics = macro.macro_area(
        "macro_auroc",
        measured,
        odds,
        labels,
        aggregates.macro_auroc,
        np.full(len(names), 0.5),
        mean_of,
        present.tolist(),
    )
    if len(names) == 2:
        return metrics + zero_shot_metrics.sensitivity_at_specificities(
            measured, names, odds, labels, mean_of
        )
    for i in (i for i in _largest_classes(counts) if i in present):
        area = partial(aggregates.auroc, labels=labels[:, i])
        everyone = np.arange(len(rows))
        metrics.append(results.metric(f"auroc/{names[i]}", measured, everyone, odds[:, i], area, 0.5))
    return metrics


def _largest_classes(counts: np.ndarray) -> list[int]:
    """The classes with enough items (c,), of them those with the most."""
    most = np.argsort(-counts, kind="stable")[:_MOST_CLASSES]
    return sorted(most[counts[most] >= results.MIN_ITEMS].tolist())
