"""The choice of α: the scores of all that were tried, the rule, and what the report says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import inf, isfinite
from typing import Any

from domainclip.evaluation.base import RETENTION
from domainclip.evaluation.statistics.drops import cannot_be_shown, drop_at_most
from domainclip.evaluation.verdicts import ComparisonRow

_FLOOR = "weight_interpolation.max_retention_drop"
_UNCHANGED = (
    f"{_FLOOR}: no α improves the metric and is shown to stay within this drop: the model has the weights of "
    "the base"
)


@dataclass(frozen=True)
class AlphaScore:
    """The score of one α; α = 0 is the base."""

    alpha: float
    score: float  # on the validation split; higher is better
    error: float  # its standard error
    general: float | None = None  # the same metric on the retention set, where there is one
    drop_at_most: float = inf  # bound of its drop below the base there; of the base: the least possible one


def choose_alpha(tried: Sequence[AlphaScore], floor: float | None = None) -> float:
    """The selected α.

    Without a floor, the smallest above 0 whose score is within one standard error of the best. With one, the
    best score of those that are shown to lose at most `floor` on the retention set; of equals, the smallest.
    """
    by_alpha = sorted(tried, key=lambda score: score.alpha)
    if floor is not None:
        return max(_within(by_alpha, floor), key=lambda score: score.score).alpha
    moved = [score for score in by_alpha if score.alpha > 0]
    best = max(moved, key=lambda score: score.score)
    error = best.error if isfinite(best.error) else 0.0  # too few groups for an interval: the best itself
    return next(score.alpha for score in moved if score.score >= best.score - error)


def _within(by_alpha: Sequence[AlphaScore], floor: float) -> list[AlphaScore]:
    """Those that meet the floor, the base among them.

    In the order of α, up to the first that is not shown to meet it: then however many are tried, the risk of
    taking one that does not meet it is that of a single test. Where not even the base is shown to equal
    itself, the set is too small, and the estimates decide.
    """
    base = by_alpha[0]
    assert base.alpha == 0
    assert base.general is not None
    floor += 1e-12  # 0.50 - 0.49 is a hair more than 0.01
    if base.drop_at_most > floor:
        least = base.general - floor
        return [score for score in by_alpha if score.general is not None and score.general >= least]
    return [*takewhile(lambda score: score.drop_at_most <= floor, by_alpha)]


@dataclass(frozen=True)
class InterpolationResult:
    """All α that were tried, and the selected one."""

    alpha: float
    tried: Sequence[AlphaScore]
    floor: float | None
    metric: str  # that selected
    unit: str
    groups: int = 0  # of the half of the retention set that the floor is tested on

    def facts(self) -> dict[str, Any]:
        """For the report: scores by α, 0 being the base."""
        general = {str(score.alpha): score.general for score in self.tried if score.general is not None}
        used = "not used for choosing" if self.floor is None else "half of the set, which is not reported"
        return {
            "alpha": self.alpha,
            "figure": self.metric,
            "unit": self.unit,
            "validation": {str(score.alpha): score.score for score in self.tried},
            **({"general": general, "general_is": used} if general else {}),
            **({} if self.floor is None else {"floor": self.floor, "drop_at_most": self._bounds()}),
        }

    def _bounds(self) -> dict[str, float]:
        return {str(score.alpha): score.drop_at_most for score in self.tried if isfinite(score.drop_at_most)}

    def warnings(self) -> tuple[str, ...]:
        """For the report: a floor that cannot be shown to be met, and one that leaves only the base."""
        if self.floor is None:
            return ()
        too_few = cannot_be_shown(self.floor, self.groups, self.unit)
        unchanged = (_UNCHANGED,) if self.alpha == 0 else ()
        return (*((f"{_FLOOR}: {too_few}",) if too_few else ()), *unchanged)

    def unmet(self, rows: Sequence[ComparisonRow]) -> tuple[str, ...]:
        """Whether the reported half of the retention set, on which nothing was selected, breaks the floor."""
        row = next(
            (r for r in rows if r.dataset == RETENTION and f"{r.probe} {r.metric}" == self.metric), None
        )
        if self.floor is None or row is None or row.difference is None or self.alpha == 0:
            return ()
        drop = -row.difference.value if row.higher_is_better else row.difference.value
        bound = drop_at_most(row.difference, row.groups, row.unit, row.higher_is_better)
        if bound <= self.floor + 1e-12:
            return ()
        on = f"{_FLOOR}: on the reported half of the retention set, {self.metric} dropped by {drop:.3f}"
        most = (
            f"at most {bound:.3f} with 95 % confidence" if isfinite(bound) else "too few groups for a bound"
        )
        met = "is not met" if drop > self.floor + 1e-12 else "is not shown to be met"
        return (f"{on} ({most}): the drop of {self.floor:g} {met}",)
