"""Metrics that noise alone moves to one side: a calibration error, a gap, the worst of several cells.

The interval of such a metric would hold its truth in few cases, and a difference of two models may be one of
noise: it is shown beside the value that noise alone gives, without interval, p and verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow

NO_INTERVAL = "noise alone moves it to one side"


def described(row: ComparisonRow, results: Sequence[ProbeResult]) -> ComparisonRow:
    """The row without interval and p if its metric is biased, else unchanged; `results` of each model."""
    metrics = [metric for result in results for metric in result.metrics if metric.name == row.metric]
    if not any(metric.biased for metric in metrics):
        return row
    return replace(
        row,
        base=_value_alone(row.base),
        adapted=_value_alone(row.adapted) if row.adapted else None,
        difference=_value_alone(row.difference) if row.difference else None,
        change=None,
        biased=True,
        by_luck=tuple(metric.by_luck for metric in metrics),
        too_few=row.too_few or NO_INTERVAL,
    )


def _value_alone(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value, np.nan, np.nan)
