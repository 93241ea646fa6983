"""What the readers of a domain call a metric: astronomers say completeness and purity of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from domainclip.evaluation.base import ProbeResult


def with_names(result: ProbeResult, names: Mapping[str, str]) -> ProbeResult:
    """The result with metrics and columns of tables under these names; nothing else changes."""
    if not names:
        return result
    metrics = []
    for metric in result.metrics:
        whole, slash, part = metric.name.partition("/")
        metrics.append(replace(metric, name=names.get(whole, whole) + slash + part))
    errors = result.diagnostics
    if errors is not None:
        errors = replace(
            errors,
            recall_name=names.get("recall", errors.recall_name),
            precision_name=names.get("precision", errors.precision_name),
        )
    primary = names.get(result.primary, result.primary)
    return replace(result, metrics=metrics, primary=primary, diagnostics=errors)
