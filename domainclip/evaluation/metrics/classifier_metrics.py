"""Accuracy, macro F1, AUROC and average precision of a classifier, as metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import EvaluationSet, Metric
from domainclip.evaluation.metrics.decisions import top1_shares, top_k_hits
from domainclip.evaluation.metrics.labelled_examples import Examples
from domainclip.evaluation.metrics.labels import has_both_classes, single_label_rows
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.statistics import aggregates


def always_commonest(counts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) hits of a model that sees nothing and always says the commonest class, ties by lot."""
    hits: np.ndarray = top1_shares(counts[None, :])[0][truth]
    return hits


def classifier_metric(scores: np.ndarray, labels: np.ndarray, several: bool) -> float:
    """Macro accuracy, or macro AUROC where an item may hold several classes; to choose by."""
    if several:
        both = has_both_classes(labels)
        if not both.any():
            return 0.0
        return aggregates.point_estimate(
            partial(aggregates.macro_auroc, labels=labels[:, both]), scores[:, both]
        )
    rows, truth = single_label_rows(labels)
    return aggregates.point_estimate(
        partial(aggregates.macro_mean, classes=truth), top_k_hits(scores[rows], truth)
    )


def classifier_metrics(
    data: EvaluationSet, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, train: Examples
) -> list[Metric]:
    """What a classifier that was fitted on `train` reaches: accuracies, or AUROCs by `multi_label`.

    Chance is what the classifier would reach that saw only how common each class is in `train`.
    """
    if data.card.multi_label:
        return _areas(
            data.items, names, scores, labels, has_both_classes(labels) & has_both_classes(train.labels)
        )
    rows, truth = single_label_rows(labels)
    if not len(rows):
        return []
    found, macro = top_k_hits(scores[rows], truth), partial(aggregates.macro_mean, classes=truth)
    counts = np.bincount(single_label_rows(train.labels)[1], minlength=len(names))
    blind = always_commonest(counts, truth)
    return [
        metric("macro_accuracy", data.items, rows, found, macro, aggregates.point_estimate(macro, blind)),
        metric(
            "accuracy",
            data.items,
            rows,
            found,
            aggregates.mean,
            aggregates.point_estimate(aggregates.mean, blind),
        ),
    ]


def _areas(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, both: np.ndarray
) -> list[Metric]:
    if not both.any():
        return []
    macro = partial(aggregates.macro_auroc, labels=labels[:, both])
    metrics = [metric("macro_auroc", items, np.arange(len(labels)), scores[:, both], macro, 0.5)]
    for i in np.flatnonzero(both).tolist():
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        area = partial(aggregates.auroc, labels=labels[known, i])
        metrics.append(metric(f"auroc/{names[i]}", items, known, scores[known, i], area, 0.5))
    return metrics
