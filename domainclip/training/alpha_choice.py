"""The choice of α: the scores of all that were tried, the rule, and the facts for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
# The standard error of the paired difference between the scores of two α, over the groups; NaN: too few.
PairedError = Callable[[float, float], float]


@dataclass(frozen=True)
class AlphaScore:
    """The score of one α; α = 0 is the base."""

    alpha: float
    score: float  # on the validation split; higher is better
    general: float | None = None  # the same metric on the retention set, where there is one
    # Of the headline metrics there, the largest drop below the base, and the largest bound of one; that of
    # the base itself is the least possible bound.
    drop: float = 0.0
    drop_at_most: float = inf


def choose_alpha(tried: Sequence[AlphaScore], paired_error: PairedError, floor: float | None = None) -> float:
    """The selected α: of those whose score is above the base's, the smallest within one error of the best.

    The standard error is that of the paired difference from the best, which is smaller than that of a score,
    since all α are measured on the same items. With a floor, only those α count that are shown to lose at
    most `floor` on the retention set. Where no α that counts improves the score, it is 0, the base.
    """
    by_alpha = sorted(tried, key=lambda score: score.alpha)
    base, *moved = by_alpha if floor is None else _within(by_alpha, floor)
    assert base.alpha == 0
    better = [score for score in moved if score.score > base.score]
    if not better:
        return 0.0
    best = max(better, key=lambda score: score.score)
    return next(score.alpha for score in better if _is_close(score, best, paired_error))


def _is_close(score: AlphaScore, best: AlphaScore, paired_error: PairedError) -> bool:
    if score.alpha == best.alpha:
        return True
    error = paired_error(score.alpha, best.alpha)
    return isfinite(error) and best.score - score.score <= error


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
        return [score for score in by_alpha if score.general is not None and score.drop <= floor]
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
    # Of each tower, where they are chosen apart: its α, and the scores of all that were tried.
    by_tower: Mapping[str, tuple[float, Sequence[AlphaScore]]] = field(default_factory=dict)

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
            **({"by_tower": self._towers()} if self.by_tower else {}),
            **({} if self.floor is None else {"floor": self.floor, "drop_at_most": self._bounds()}),
        }

    def _towers(self) -> dict[str, Any]:
        return {
            tower: {"alpha": alpha, "validation": {str(score.alpha): score.score for score in tried}}
            for tower, (alpha, tried) in self.by_tower.items()
        }

    def _bounds(self) -> dict[str, float]:
        return {str(score.alpha): score.drop_at_most for score in self.tried if isfinite(score.drop_at_most)}

    def warnings(self) -> tuple[str, ...]:
        """For log and report: that the base stays, and a floor that cannot be shown to be met."""
        if self.floor is None:
            return (self._no_gain(),) if self.alpha == 0 else ()
        too_few = cannot_be_shown(self.floor, self.groups, self.unit)
        unchanged = (_UNCHANGED,) if self.alpha == 0 else ()
        return (*((f"{_FLOOR}: {too_few}",) if too_few else ()), *unchanged)

    def _no_gain(self) -> str:
        base, *moved = sorted(self.tried, key=lambda score: score.alpha)
        best = max(moved, key=lambda score: score.score)
        return (
            f"weight_interpolation: adaptation did not help: on the validation split {self.metric} is "
            f"{abs(base.score):.3f} for the base and {abs(best.score):.3f} for the best α ({best.alpha:g}), "
            "so α = 0 was taken and the model has the weights of the base"
        )

    def unmet(self, rows: Sequence[ComparisonRow]) -> tuple[str, ...]:
        """Whether the reported half of the retention set, on which nothing was selected, breaks the floor."""
        if self.floor is None or self.alpha == 0:
            return ()
        limited = [row for row in rows if row.dataset == RETENTION and self._is_limited(row)]
        return tuple(_unmet(row, self.floor) for row in limited if bound_of(row) > self.floor + 1e-12)

    def _is_limited(self, row: ComparisonRow) -> bool:
        if row.difference is None:
            return False
        other = row.primary and row.unit == "share" and row.comparable and not row.control_fault
        return f"{row.probe} {row.metric}" == self.metric or (
            other and not self.metric.startswith(f"{row.probe} ")
        )


def drop_of(row: ComparisonRow) -> float:
    """How far a metric has dropped below the base."""
    assert row.difference is not None
    return -row.difference.value if row.higher_is_better else row.difference.value


def bound_of(row: ComparisonRow) -> float:
    """The largest drop of a metric that its interval leaves open; infinity for few groups."""
    assert row.difference is not None
    return drop_at_most(row.difference, row.groups, row.higher_is_better)


def _unmet(row: ComparisonRow, floor: float) -> str:
    drop, bound = drop_of(row), bound_of(row)
    metric = f"{row.probe} {row.metric}"
    on = f"{_FLOOR}: on the reported half of the retention set, {metric} dropped by {drop:.3f}"
    most = f"at most {bound:.3f} with 95 % confidence" if isfinite(bound) else "too few groups for a bound"
    met = "is not met" if drop > floor + 1e-12 else "is not shown to be met"
    return f"{on} ({most}): the drop of {floor:g} {met}"
