"""Figures about classes that zero-shot answers give: areas under curves, answers at thresholds, spreads.

Legend: n items, c classes, k templates, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics import results
from domainclip.evaluation.statistics import aggregates

if TYPE_CHECKING:
    from datasets import Dataset

_PICKS: dict[str, Callable[..., np.ndarray]] = {"lowest": np.min, "median": np.median, "highest": np.max}


def areas(
    items: Dataset,
    names: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    mean_of: Sequence[int],
    both: Sequence[int],
) -> list[Metric]:
    """AUROC and AUPRC of each class in `both`, and their means over `mean_of`; scores and labels (n, c)."""
    everyone = np.arange(len(items))
    prevalence = np.nanmean(labels, axis=0)
    truth = labels[:, mean_of]
    metrics = [
        results.metric(
            "macro_auroc",
            items,
            everyone,
            scores[:, mean_of],
            partial(aggregates.macro_auroc, labels=truth),
            0.5,
        ),
        results.metric(
            "macro_auprc",
            items,
            everyone,
            scores[:, mean_of],
            partial(aggregates.macro_average_precision, labels=truth),
            float(prevalence[mean_of].mean()),
        ),
    ]
    for i in both:
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        single = partial(aggregates.auroc, labels=labels[known, i])
        metrics.append(results.metric(f"auroc/{names[i]}", items, known, scores[known, i], single, 0.5))
    for i in both:
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        area = partial(aggregates.average_precision, labels=labels[known, i])
        chance = float(prevalence[i])
        metrics.append(results.metric(f"auprc/{names[i]}", items, known, scores[known, i], area, chance))
    return metrics


def answers(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, limits: np.ndarray
) -> list[Metric]:
    """Sensitivity and specificity of yes-or-no answers at each class's own threshold, and their means.

    A class of few items is in the means, but has no figure of its own.

    scores and labels (n, c), limits (c,). A model that knows nothing has the two add up to 1, so neither has
    a chance of its own; their mean, the balanced accuracy, has: one half.
    """
    if not len(names):
        return []
    yes, everyone = (scores >= limits).astype(float), np.arange(len(items))
    sides = {"sensitivity": (yes, labels), "specificity": (1 - yes, 1 - labels)}
    metrics = [
        results.metric(
            "macro_balanced_accuracy",
            items,
            everyone,
            yes,
            partial(_balanced, labels=labels),
            0.5,
        )
    ]
    for side, (said, truth) in sides.items():
        macro = partial(_macro_share, labels=truth)
        metrics.append(results.metric(f"macro_{side}", items, everyone, said, macro))
    for side, (said, truth) in sides.items():
        for i, name in enumerate(names):
            own = np.flatnonzero(truth[:, i] == 1)
            if len(own) < results.MIN_ITEMS:
                continue
            metrics.append(results.metric(f"{side}/{name}", items, own, said[own, i], aggregates.mean))
    return metrics


def spread(
    figure: str,
    metric: Callable[..., Metric],
    by_template: Sequence[np.ndarray],
    aggregate: aggregates.Aggregate,
    chance: float,
) -> list[Metric]:
    """The figure of the lowest, the middle and the highest of k templates, when there are several.

    Which template that is, is found anew in every resample: a best one chosen once would flatter.
    """
    if len(by_template) < 2:
        return []
    scores = np.stack(by_template, axis=-1)
    return [
        metric(
            name=f"{figure}_over_templates/{pick}",
            scores=scores,
            aggregate=partial(_picked, aggregate=aggregate, pick=how),
            chance=chance,
            comparable=pick == "median",  # a lowest and a highest of several are too low and too high by luck
        )
        for pick, how in _PICKS.items()
    ]


def _picked(
    scores: np.ndarray,
    weights: np.ndarray,
    aggregate: aggregates.Aggregate,
    pick: Callable[..., np.ndarray],
) -> np.ndarray:
    each = np.stack([aggregate(scores[..., k], weights) for k in range(scores.shape[-1])], axis=1)
    found: np.ndarray = pick(each, axis=1)
    return found


def _macro_share(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return aggregates.over_columns(aggregates.share_among, scores, weights, labels)


def _balanced(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    caught = _macro_share(scores, weights, labels)
    both: np.ndarray = (caught + _macro_share(1 - scores, weights, 1 - labels)) / 2
    return both
