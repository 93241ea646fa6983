"""Metrics of zero-shot classification: AUROC and AUPRC, decisions at thresholds, spread over templates.

Legend: n items, c classes, k templates, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics import macro, results
from domainclip.evaluation.statistics import aggregates

if TYPE_CHECKING:
    from datasets import Dataset

_PICKS: dict[str, Callable[..., np.ndarray]] = {"lowest": np.min, "median": np.median, "highest": np.max}


def auroc_and_auprc(
    items: Dataset,
    names: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    mean_of: Sequence[int],
    all_of: Sequence[int],
    two_sided: Sequence[int],
) -> list[Metric]:
    """AUROC and AUPRC of each class in `two_sided`, and their means over `mean_of` and over `all_of`.

    Scores and labels (n, c); `two_sided` are the classes with positives and negatives.
    """
    prevalence = np.nanmean(labels, axis=0)
    means = partial(
        macro.macro_area, items=items, scores=scores, labels=labels, mean_of=mean_of, all_of=all_of
    )
    metrics = [
        *means("macro_auroc", aggregate=aggregates.macro_auroc, chance=np.full(len(names), 0.5)),
        *means("macro_auprc", aggregate=aggregates.macro_average_precision, chance=prevalence),
    ]
    for i in two_sided:
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        single = partial(aggregates.auroc, labels=labels[known, i])
        metrics.append(results.metric(f"auroc/{names[i]}", items, known, scores[known, i], single, 0.5))
    for i in two_sided:
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        area = partial(aggregates.average_precision, labels=labels[known, i])
        chance = float(prevalence[i])
        metrics.append(results.metric(f"auprc/{names[i]}", items, known, scores[known, i], area, chance))
    return metrics


def sensitivity_and_specificity(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> list[Metric]:
    """Sensitivity and specificity at the threshold of each class, and their means.

    A class with fewer than `MIN_ITEMS` items counts in the means, but has no metric of its own.

    Scores and labels (n, c), thresholds (c,). At chance the two add up to 1, so neither has a chance level;
    their mean, the balanced accuracy, has one: 0.5.
    """
    if not len(names):
        return []
    positive_answers, rows = (scores >= thresholds).astype(float), np.arange(len(items))
    sides = {"sensitivity": (positive_answers, labels), "specificity": (1 - positive_answers, 1 - labels)}
    metrics = [
        results.metric(
            "macro_balanced_accuracy",
            items,
            rows,
            positive_answers,
            partial(_balanced_accuracy, labels=labels),
            0.5,
        )
    ]
    for side, (answers, truth) in sides.items():
        macro = partial(_macro_share, labels=truth)
        metrics.append(results.metric(f"macro_{side}", items, rows, answers, macro))
    for side, (answers, truth) in sides.items():
        for i, name in enumerate(names):
            positives = np.flatnonzero(truth[:, i] == 1)
            if len(positives) < results.MIN_ITEMS:
                continue
            metrics.append(
                results.metric(f"{side}/{name}", items, positives, answers[positives, i], aggregates.mean)
            )
    return metrics


def template_spread(
    metric_name: str,
    make_metric: Callable[..., Metric],
    by_template: Sequence[np.ndarray],
    aggregate: aggregates.Aggregate,
    chance: float,
) -> list[Metric]:
    """The metric of the lowest, the median and the highest of k templates; empty for a single template.

    The template is selected anew in every resample: a best one selected once would be biased upwards.
    """
    if len(by_template) < 2:
        return []
    scores = np.stack(by_template, axis=-1)
    return [
        make_metric(
            name=f"{metric_name}_over_templates/{pick}",
            scores=scores,
            aggregate=partial(_reduce_templates, aggregate=aggregate, pick=reduce),
            chance=chance,
            comparable=pick == "median",  # the extremes of several estimates are biased
        )
        for pick, reduce in _PICKS.items()
    ]


def _reduce_templates(
    scores: np.ndarray,
    weights: np.ndarray,
    aggregate: aggregates.Aggregate,
    pick: Callable[..., np.ndarray],
) -> np.ndarray:
    values = np.stack([aggregate(scores[..., k], weights) for k in range(scores.shape[-1])], axis=1)
    picked: np.ndarray = pick(values, axis=1)
    return picked


def _macro_share(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return aggregates.over_columns(aggregates.share_among, scores, weights, labels)


def _balanced_accuracy(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sensitivity = _macro_share(scores, weights, labels)
    accuracy: np.ndarray = (sensitivity + _macro_share(1 - scores, weights, 1 - labels)) / 2
    return accuracy
