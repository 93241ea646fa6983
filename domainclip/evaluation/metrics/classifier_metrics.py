"""Accuracy, macro F1, AUROC and average precision of a classifier, as metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.base import EvaluationSet, Metric
from domainclip.evaluation.diagnostics import Diagnostics
from domainclip.evaluation.metrics import class_diagnostics, macro
from domainclip.evaluation.metrics.decisions import top1_shares, top_k_hits
from domainclip.evaluation.metrics.labelled_examples import Examples
from domainclip.evaluation.metrics.labels import (
    frequent_classes,
    groups_with_and_without,
    has_both_classes,
    names_to_show,
    single_label_rows,
)
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.statistics import aggregates


def majority_class_hits(counts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) hits of always predicting the most frequent class; classes that tie share the hit."""
    hits: np.ndarray = top1_shares(counts[None, :])[0][truth]
    return hits


def selection_score(scores: np.ndarray, labels: np.ndarray, multi_label: bool) -> float:
    """Macro accuracy, or macro AUROC for multi-label items: the criterion of model selection."""
    if multi_label:
        two_sided = has_both_classes(labels)
        if not two_sided.any():
            return 0.0
        return aggregates.point_estimate(
            partial(aggregates.macro_auroc, labels=labels[:, two_sided]), scores[:, two_sided]
        )
    rows, truth = single_label_rows(labels)
    return aggregates.point_estimate(
        partial(aggregates.macro_mean, classes=truth), top_k_hits(scores[rows], truth)
    )


def classifier_metrics(
    data: EvaluationSet, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, train: Examples
) -> list[Metric]:
    """Accuracy and macro accuracy of a classifier fitted on `train`, or AUROCs for a multi-label card.

    Chance level: a classifier that knows only the class frequencies of `train`.
    """
    if data.card.multi_label:
        return _areas(
            data.items, names, scores, labels, has_both_classes(labels) & has_both_classes(train.labels)
        )
    rows, truth = single_label_rows(labels)
    if not len(rows):
        return []
    hits = top_k_hits(scores[rows], truth)
    counts = np.bincount(single_label_rows(train.labels)[1], minlength=len(names))
    majority = majority_class_hits(counts, truth)
    metrics = [
        *macro.macro_accuracy(data.items, rows, hits, truth, majority),
        metric(
            "accuracy",
            data.items,
            rows,
            hits,
            aggregates.mean,
            aggregates.point_estimate(aggregates.mean, majority),
        ),
    ]
    first = macro.headline(truth)
    return sorted(metrics, key=lambda one: one.name != first)


def classifier_diagnostics(
    data: EvaluationSet, names: Sequence[str], scores: np.ndarray, labels: np.ndarray
) -> Diagnostics:
    """Where a fitted classifier errs, by its scores (n, c) on labels (n, c) of the set."""
    shown = names_to_show(data, names)
    if data.card.multi_label:
        return class_diagnostics.of_multi_label(shown, data.items, scores, labels, {})
    rows, truth = single_label_rows(labels)
    scores = scores[rows]
    one_hot = np.eye(len(names))[truth]
    return class_diagnostics.of_single_label(
        shown, data.items, rows, top1_shares(scores), scores, truth, one_hot
    )


def _areas(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, two_sided: np.ndarray
) -> list[Metric]:
    if not two_sided.any():
        return []
    all_of = np.flatnonzero(two_sided)
    sides = groups_with_and_without(labels[:, all_of], items["group"])
    metrics = macro.macro_area(
        "macro_auroc",
        items,
        scores,
        labels,
        aggregates.macro_auroc,
        np.full(labels.shape[1], 0.5),
        mean_of=all_of[frequent_classes(sides)].tolist(),
        all_of=all_of.tolist(),
    )
    for i in np.flatnonzero(two_sided).tolist():
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        area = partial(aggregates.auroc, labels=labels[known, i])
        metrics.append(metric(f"auroc/{names[i]}", items, known, scores[known, i], area, 0.5))
    return metrics
