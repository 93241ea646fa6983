"""Figures with intervals, from per-item scores: how sure we may be, and whether two models differ.

An aggregate takes scores (n, …) and weights (r, n), how often each item was drawn, and gives r values, NaN
where the figure is undefined. Weights instead of copied rows keep the whole bootstrap vectorised.
"""

from __future__ import annotations

from domainclip.statistics.aggregates import (
    Aggregate,
    auroc,
    average_precision,
    calibration_error,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    macro_mean,
    mean,
    median,
    over_columns,
    pooled_mean,
    share_among,
    whole,
)
from domainclip.statistics.bootstrap import (
    bca,
    bootstrap_weights,
    freedom,
    interval,
    jackknife,
    p_value,
    share_interval,
    weight_blocks,
)
from domainclip.statistics.controls import a_a_control, null_claims
from domainclip.statistics.exact import (
    benjamini_hochberg,
    clopper_pearson,
    delong,
    delong_test,
    hanley_mcneil,
    holm,
    mcnemar,
    wilson,
)
from domainclip.statistics.figures import MIN_GROUPS, Comparison, Figure, Method, compare

__all__ = [
    "MIN_GROUPS",
    "Aggregate",
    "Comparison",
    "Figure",
    "Method",
    "a_a_control",
    "auroc",
    "average_precision",
    "bca",
    "benjamini_hochberg",
    "bootstrap_weights",
    "calibration_error",
    "clopper_pearson",
    "compare",
    "delong",
    "delong_test",
    "freedom",
    "hanley_mcneil",
    "holm",
    "interval",
    "jackknife",
    "macro_auroc",
    "macro_average_precision",
    "macro_f1",
    "macro_mean",
    "mcnemar",
    "mean",
    "median",
    "null_claims",
    "over_columns",
    "p_value",
    "pooled_mean",
    "share_among",
    "share_interval",
    "weight_blocks",
    "whole",
    "wilson",
]
