"""Where a classifier errs: confusion matrix, scores and curves by class, beside its metrics.

Legend: n items, c classes, k thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from datasets import Dataset

from domainclip.evaluation.diagnostics import (
    ClassCurves,
    ClassScores,
    ConfusionMatrix,
    Diagnostics,
    OperatingPoint,
)
from domainclip.evaluation.metrics.results import MIN_ITEMS
from domainclip.evaluation.statistics import aggregates

_MOST_POINTS, _MOST_CURVES = 200, 30  # of a curve; of a set


def of_single_label(
    names: Sequence[str],
    items: Dataset,
    rows: np.ndarray,
    shares: np.ndarray,
    odds: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
) -> Diagnostics:
    """Of one class an item: top-1 shares (n, c) and truth (n,) of the items at these rows of the set.

    `odds` (n, c) order the items of each class, of 1 in `labels` (n, c), against all others.
    """
    stated = np.eye(len(names))[truth]
    groups = np.asarray(list(items["group"]), dtype=str)[rows]
    classes = [
        replace(
            _class_scores(name, groups, odds[:, i], shares[:, i], stated[:, i]),
            auroc=_auroc(odds[:, i], labels[:, i]),
        )
        for i, name in enumerate(names)
    ]
    return Diagnostics(
        ConfusionMatrix(list(names), stated.T @ shares), classes, _curves(names, odds, labels, {})
    )


def of_multi_label(
    names: Sequence[str],
    items: Dataset,
    scores: np.ndarray,
    labels: np.ndarray,
    thresholds: Mapping[str, float],
) -> Diagnostics:
    """Of several classes an item: scores and labels (n, c) of the items of the set, NaN where unknown.

    Answers, recall, precision and F1 are those at the threshold of a class; NaN for a class without one.
    """
    groups, classes = np.asarray(list(items["group"]), dtype=str), []
    for i, name in enumerate(names):
        known = ~np.isnan(labels[:, i])
        limit = thresholds.get(name, np.nan)
        answers = np.where(np.isnan(limit), np.nan, scores[known, i] >= limit)
        classes.append(_class_scores(name, groups[known], scores[known, i], answers, labels[known, i]))
    return Diagnostics(None, classes, _curves(names, scores, labels, thresholds))


def _class_scores(
    name: str, groups: np.ndarray, scores: np.ndarray, answers: np.ndarray, labels: np.ndarray
) -> ClassScores:
    """One class by its scores (n,), answers (n,) of 0 to 1 and labels (n,); NaN with too few items."""
    positive = labels == 1
    items, answered, right = int(positive.sum()), float(answers.sum()), float(answers[positive].sum())
    enough = items >= MIN_ITEMS
    return ClassScores(
        name,
        items=items,
        groups=len(set(groups[positive])),
        answers=answered,
        recall=right / items if enough else np.nan,
        precision=right / answered if enough and answered else np.nan,
        f1=2 * right / (items + answered) if enough else np.nan,
        auroc=_auroc(scores, labels),
    )


def _auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Of scores and labels (n,); NaN with too few positive items."""
    if (labels == 1).sum() < MIN_ITEMS:
        return np.nan
    return aggregates.point_estimate(partial(aggregates.auroc, labels=labels), scores)


def _curves(
    names: Sequence[str], scores: np.ndarray, labels: np.ndarray, thresholds: Mapping[str, float]
) -> list[ClassCurves]:
    """The curves of the classes with most items, if enough of both kinds; scores and labels (n, c)."""
    curves = []
    for i in np.sort(np.argsort(-np.nansum(labels, axis=0), kind="stable")[:_MOST_CURVES]):
        name = names[i]
        known = ~np.isnan(labels[:, i])
        positive, values = labels[known, i] == 1, scores[known, i]
        if min(positive.sum(), (~positive).sum()) >= MIN_ITEMS:
            curves.append(_curve(name, values, positive, thresholds.get(name)))
    return curves


def _curve(name: str, scores: np.ndarray, positive: np.ndarray, threshold: float | None) -> ClassCurves:
    levels, level = np.unique(-scores, return_inverse=True)
    right, wrong = (
        np.concatenate([[0], np.cumsum(np.bincount(level[side], minlength=len(levels)))])
        for side in (positive, ~positive)
    )
    precision = right[1:] / (right + wrong)[1:]
    kept = np.unique(np.linspace(0, len(levels), min(_MOST_POINTS, len(levels) + 1)).round().astype(int))
    return ClassCurves(
        name,
        false_positive_rate=(wrong / wrong[-1])[kept],
        sensitivity=(right / right[-1])[kept],
        precision=np.concatenate([precision[:1], precision])[kept],
        prevalence=float(positive.mean()),
        point=None if threshold is None else operating_point(scores, positive, threshold),
    )


def operating_point(scores: np.ndarray, positive: np.ndarray, threshold: float) -> OperatingPoint:
    """What a threshold gives on scores (n,) of items that are positive or not (n,); ties with it are yes."""
    yes = scores >= threshold

    def share(part: np.ndarray, whole: np.ndarray) -> float:
        return float(part[whole].mean()) if whole.any() else np.nan

    return OperatingPoint(
        threshold,
        sensitivity=share(yes, positive),
        specificity=share(~yes, ~positive),
        positive_predictive_value=share(positive, yes),
        negative_predictive_value=share(~positive, ~yes),
        prevalence=float(positive.mean()),
    )
