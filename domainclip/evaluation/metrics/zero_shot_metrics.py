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
from domainclip.evaluation.statistics.estimates import too_few_groups

if TYPE_CHECKING:
    from datasets import Dataset

SPECIFICITIES = (90, 95)  # percent, at which sensitivities are compared
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


def sensitivity_at_specificities(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, classes: Sequence[int]
) -> list[Metric]:
    """Sensitivity at 90 and at 95 % specificity: of each class, and the mean over those with enough groups.

    Scores and labels (n, c), NaN where unknown. The threshold is that of the measured items, chosen anew in
    every resample, so the interval holds its noise.
    """
    metrics = []
    for percent in SPECIFICITIES:
        name, chance, at = f"sensitivity_at_{percent}_percent_specificity", 1 - percent / 100, percent / 100
        parts = []
        for i in classes:
            known = np.flatnonzero(~np.isnan(labels[:, i]))
            area = partial(aggregates.sensitivity_at_specificity, labels=labels[known, i], specificity=at)
            parts.append(results.metric(f"{name}/{names[i]}", items, known, scores[known, i], area, chance))
        few = [bool(too_few_groups(part.aggregate, part.groups)) for part in parts]
        enough = [i for i, rare in zip(classes, few, strict=True) if not rare]
        if len(enough) > 1:
            mean = aggregates.macro_sensitivity_at_specificity
            macro = partial(mean, labels=labels[:, enough], specificity=at)
            rows = np.arange(len(items))
            metrics.append(results.metric(f"macro_{name}", items, rows, scores[:, enough], macro, chance))
        metrics += parts
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
            biased=pick != "median",  # as the extremes of several estimates are
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
