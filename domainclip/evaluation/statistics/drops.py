"""How far a metric may have dropped: the bound by which a limit on the drop is met, not the estimate."""

from __future__ import annotations

from math import ceil, inf, sqrt

from scipy.stats import t

from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate


def drop_at_most(change: Estimate, groups: int, higher_is_better: bool = True) -> float:
    """The largest drop that a paired difference leaves open, from its 95 % interval; infinity for few groups.

    The interval of a share has a width even where no group changed, so the drop is never less than
    `least_drop`.
    """
    if groups < MIN_GROUPS or change.low != change.low:
        return inf
    return max(0.0, -change.low if higher_is_better else change.high)


def least_drop(groups: int, unit: str = "share") -> float:
    """The smallest limit that a model in which no group changes can be shown to meet: see `paired_shares`."""
    if groups < MIN_GROUPS:
        return inf
    return float(t.ppf(0.975, groups - 1)) * sqrt(2) / (groups + 2) if unit == "share" else 0.0


def groups_for(limit: float) -> int | None:
    """The number of groups from which on a limit on the drop of a share can be shown; None for zero."""
    if limit <= 0:
        return None
    groups = max(MIN_GROUPS, int(2.7 / limit) - 2)  # with 1.96 · √2 for t: a few too few
    while least_drop(groups) > limit:
        groups += 1
    return groups


def cannot_be_shown(limit: float, groups: int, unit: str, instead: str = ", so the estimate decides") -> str:
    """Why a limit cannot be shown to be met with so few groups, and the way out; empty where it can.

    `instead`: what happens without the bound, as the end of the sentence.
    """
    least = least_drop(groups, unit)
    if least <= limit:
        return ""
    needed = groups_for(limit)
    enlarge = "" if needed is None else f"name a retention set of {needed} groups or more, or "
    allow = (
        f"allow a drop of {ceil(1000 * least) / 1000:g}" if least < inf else f"measure {MIN_GROUPS} groups"
    )
    return (
        f"a drop of at most {limit:g} cannot be shown with {groups} groups of the retention set{instead}: "
        f"{enlarge}{allow}"
    )
