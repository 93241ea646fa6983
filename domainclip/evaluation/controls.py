"""Controls: measurements whose outcome is known, and what is not judged when one comes out otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import binom, norm

from domainclip.evaluation import verdicts
from domainclip.evaluation.base import Metric, ProbeResult
from domainclip.evaluation.statistics import controls as statistics_controls
from domainclip.evaluation.statistics.estimates import Estimate, compare_paired
from domainclip.evaluation.verdicts import BETTER, WORSE, ComparisonRow

# Swaps of a null control: enough to tell 5 % from 15 %; a fifth of that where one metric takes seconds.
_SWAPS, _MIN_SWAPS, _RESAMPLES = 100, 20, 200
_MAX_SCORES = 400_000  # number of scores, summed over all swaps
_EXPECTED, _SURE = 0.05, 0.999  # share of false claims, and how sure it must be that there are more
# How far the bound lies that luck passes in one of a thousand controls, in half widths of a 95 % interval. A
# report has ten controls or more: by 95 % alone, one in four reports would have a fault by luck.
_WIDTHS = norm.ppf(_SURE) / norm.ppf(0.975)


@dataclass(frozen=True)
class NullControl:
    """False positives of the procedure where no difference exists, for one headline metric."""

    probe: str
    dataset: str
    metric: str
    itself: str  # the verdict on the base against itself
    share: float  # of the random swaps of the models, by group, for which a difference was claimed
    swaps: int

    @property
    def fault(self) -> str:
        """What is wrong with the procedure on this metric, in words; empty when its claims can be trusted."""
        if self.itself in (BETTER, WORSE):
            return f"the procedure calls the base {self.itself} than itself"
        claims = round(self.share * self.swaps)
        if claims <= int(binom.ppf(_SURE, self.swaps, _EXPECTED)):
            return ""
        return (
            f"with the models swapped at random, {claims} of {self.swaps} comparisons find a difference, "
            "where one in twenty is expected"
        )


def null_control(pair: Sequence[ProbeResult], row: ComparisonRow, seed: int) -> NullControl:
    """The procedure where no difference exists: the base against itself, and models swapped at random."""
    base, adapted = (next(m for m in result.metrics if m.name == row.metric) for result in pair)
    with_itself = verdicts.compare_metric([pair[0], pair[0]], row.metric, _RESAMPLES, seed)
    itself = verdicts.add_verdicts([with_itself])[0].verdict
    swaps = min(_SWAPS, max(_MIN_SWAPS, _MAX_SCORES // max(1, base.scores.size)))
    share = statistics_controls.false_positive_rate(
        base.aggregate, base.scores, adapted.scores, base.groups, swaps, _RESAMPLES, seed
    )
    return NullControl(row.probe, row.dataset, row.metric, str(itself), share, swaps)


def control_fault(results: Mapping[str, ProbeResult], resamples: int, seed: int) -> str:
    """Why no metric of a probe can be judged, in words; empty when every model's controls are at chance.

    `results` of one probe on one set, by the name of the model. A control that is better than chance knows
    something that it was not given, so the metrics beside it measure that as well. One that is worse is no
    fault: a model that finds the right captions of all images finds no other image's.
    """
    for model, result in results.items():
        for metric in result.metrics:
            if metric.control and (estimate := _better_than_chance(metric, resamples, seed)) is not None:
                return (
                    f"the control {metric.name} of {model} is {estimate.value:.3f} (95 % interval "
                    f"{estimate.low:.3f} to {estimate.high:.3f}), where chance is {metric.chance:.3f}"
                )
    return ""


def _better_than_chance(metric: Metric, resamples: int, seed: int) -> Estimate | None:
    """The estimate of a control, if it is better than chance by more than luck explains."""
    share = metric.unit == "share"
    alone = compare_paired(metric.aggregate, metric.scores, None, metric.groups, resamples, seed, share).base
    assert metric.chance is not None  # a control has a known outcome
    if metric.higher_is_better:
        better = alone.value - _WIDTHS * (alone.value - alone.low) > metric.chance + 1e-9
    else:
        better = alone.value + _WIDTHS * (alone.high - alone.value) < metric.chance - 1e-9
    return alone if better else None  # NaN, of too few groups, is neither


def not_judged(rows: Sequence[ComparisonRow], reason: str) -> list[ComparisonRow]:
    """The rows without a judgement, for this reason; unchanged where it is empty."""
    return [replace(row, control_fault=reason) for row in rows] if reason else list(rows)
