"""How far a metric may have dropped: the bound by which a limit on the drop is met, not the estimate."""

from __future__ import annotations

from math import ceil, inf, sqrt

from domainclip.evaluation.statistics.estimates import MIN_GROUPS, Estimate

_Z = 1.96  # of a 95 % interval


def drop_at_most(change: Estimate, groups: int, unit: str, higher_is_better: bool = True) -> float:
    """The largest drop that a paired difference leaves open, from its 95 % interval; infinity for few groups.

    A share is bounded as if one more group had got better and one more worse [doi:10.1002/sim.1781]: where
    no group changed, resampling gives an interval without width, although the next group may change.
    """
    if groups < MIN_GROUPS or change.low != change.low:
        return inf
    drop, worst = (-change.value, -change.low) if higher_is_better else (change.value, change.high)
    width = max(0.0, worst - drop)
    return drop + sqrt(width**2 + least_drop(groups, unit) ** 2)


def least_drop(groups: int, unit: str = "share") -> float:
    """The smallest limit that any model can be shown to meet, even one in which no group changes."""
    if groups < MIN_GROUPS:
        return inf
    return _Z / (groups + 2) if unit == "share" else 0.0


def groups_for(limit: float) -> int | None:
    """The number of groups from which on a limit on the drop of a share can be shown; None for zero."""
    return max(MIN_GROUPS, ceil(_Z / limit - 2)) if limit > 0 else None


def cannot_be_shown(limit: float, groups: int, unit: str) -> str:
    """Why a limit cannot be shown to be met with so few groups, and the way out; empty where it can."""
    least = least_drop(groups, unit)
    if least <= limit:
        return ""
    needed = groups_for(limit)
    enlarge = "" if needed is None else f"name a retention set of {needed} groups or more, or "
    allow = (
        f"allow a drop of {ceil(1000 * least) / 1000:g}" if least < inf else f"measure {MIN_GROUPS} groups"
    )
    return (
        f"a drop of at most {limit:g} cannot be shown with {groups} groups of the retention set, so the "
        f"estimate decides: {enlarge}{allow}"
    )
