"""Constructors for metrics and for results without metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip.evaluation.base import EvaluationSet, Metric, ProbeResult
from domainclip.evaluation.statistics import aggregates

if TYPE_CHECKING:
    from datasets import Dataset

# A class or cell with fewer items has no metric: it would be too noisy, and could identify a person.
MIN_ITEMS = 10


def metric(
    name: str,
    items: Dataset,
    rows: np.ndarray,
    scores: np.ndarray,
    aggregate: aggregates.Aggregate = aggregates.mean,
    chance: float | None = None,
    higher_is_better: bool = True,
    unit: str = "share",
    comparable: bool = True,
    biased: bool = False,
    by_luck: float | None = None,
) -> Metric:
    """A metric over some rows of a set, with scores in their order; a biased one is not comparable."""
    ids, groups = items["id"][:], items["group"][:]
    return Metric(
        name,
        [ids[row] for row in rows],
        [groups[row] for row in rows],
        scores,
        aggregate,
        higher_is_better,
        chance,
        unit,
        comparable and not biased,
        biased=biased,
        by_luck=by_luck,
    )


def not_measured(probe: str, data: EvaluationSet, version: int, missing: str, **extra: Any) -> ProbeResult:
    """The result of a probe without metrics: `missing` completes the sentence "there are no …"."""
    details = {"not_measured": f"there are no {missing}", **extra}
    return ProbeResult(probe, data.name, [], "", version, details)
