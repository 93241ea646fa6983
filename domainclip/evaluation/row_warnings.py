"""Warnings about the rows of a report: few groups, undefined resamples, failed controls, a small margin."""

from __future__ import annotations

from collections.abc import Sequence

from domainclip.evaluation.statistics.drops import cannot_be_shown
from domainclip.evaluation.statistics.estimates import MIN_GROUPS
from domainclip.evaluation.verdicts import ComparisonRow

_FEW_GROUPS = 20  # below which a percentile interval is too narrow
_MAX_UNDEFINED = 0.05  # share of resamples with an undefined metric, above which there is a warning


def control_warnings(rows: Sequence[ComparisonRow]) -> list[str]:
    """A warning for each control that failed, with the reason."""
    return list(
        dict.fromkeys(
            f"{row.probe} on {row.dataset}: not judged, since {row.control_fault}"
            for row in rows
            if row.control_fault
        )
    )


def margin_warnings(rows: Sequence[ComparisonRow]) -> list[str]:
    """A warning where the groups of a set are too few to show the margin, with the remedy."""
    reasons = (
        cannot_be_shown(row.margin, row.groups, row.unit, instead="")
        for row in rows
        if row.margin is not None and not row.part
    )
    return list(dict.fromkeys(f"retention.margin: {reason}" for reason in reasons if reason))


def interval_warnings(rows: Sequence[ComparisonRow], whole: int) -> list[str]:
    """Warnings about few groups and undefined resamples; `whole` is the number of groups in the set."""
    warnings = []
    for row in rows:
        if row.part:
            continue
        where = row.dataset if row.groups == whole else f"{_probe_or_metric(row, rows)} on {row.dataset}"
        if row.groups < MIN_GROUPS:
            warnings.append(f"{where}: only {row.groups} groups: no interval can be given below {MIN_GROUPS}")
        elif row.groups < _FEW_GROUPS:
            warnings.append(f"{where}: only {row.groups} groups: intervals are narrower than they should be")
        if row.undefined > _MAX_UNDEFINED:
            share = f"{row.undefined:.0%} of the resamples"
            warnings.append(
                f"{row.dataset}: {row.metric} is undefined in {share}: read its interval with care"
            )
    return warnings


def _probe_or_metric(row: ComparisonRow, rows: Sequence[ComparisonRow]) -> str:
    """The probe where all of its metrics rest on as many groups; else the metric as well."""
    whole = [one for one in rows if (one.probe, one.dataset) == (row.probe, row.dataset) and not one.part]
    return row.probe if len({one.groups for one in whole}) == 1 else f"{row.probe} {row.metric}"
