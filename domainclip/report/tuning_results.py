"""The results of `tune`, and the format of tuning.json, for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.report.strict_file import Interval, Strict, finite, interval

_NORMAL_95 = 1.96  # standard errors from the middle of a 95 % interval to its end
State = Literal["complete", "stopped early", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """One trial: the overrides of the recipe, and what came of them on the validation split."""

    number: int  # 0 is the recipe as it is
    overrides: Sequence[str]
    state: State
    value: float | None = None  # of the metric that decides
    gain: Estimate | None = None  # over the base; positive is better, whatever the metric
    # The same on the half of the retention set on which α is not selected, and on the other half; together
    # they rule trials out.
    retention: Estimate | None = None
    selecting: float | None = None
    alpha: float | None = None  # of weight interpolation; 0: the trial has the weights of the base
    seconds: float = 0.0
    error: str = ""

    def loses_more_than(self, margin: float | None) -> bool:
        """Whether the whole retention set has lost more than the margin; without one, no trial has.

        α is selected on one half, and the largest gain of many trials is that of the one whose items were the
        luckiest: so the other half counts as well. Either alone is half as precise.
        """
        change = self.change_in_general
        return margin is not None and change is not None and -change > margin + 1e-12

    @property
    def change_in_general(self) -> float | None:
        """The change on the whole retention set: the mean of its halves, which are about equally large."""
        if self.retention is None or self.selecting is None:
            return None if self.retention is None else self.retention.value
        return (self.retention.value + self.selecting) / 2


@dataclass(frozen=True)
class Tuning:
    """All trials and the chosen one."""

    name: str
    corpus: str
    margin: float | None  # largest drop on the retention set that α may cost; None: there is no such set
    command: str
    versions: Mapping[str, str]
    base: str = ""
    metric: str = ""  # that decides, probe/set/metric
    base_value: float = float("nan")
    unit: str = "share"
    trials: Sequence[TrialResult] = ()
    final_command: str = (
        ""  # trains the chosen recipe and measures it on the test split; empty: none is chosen
    )
    final: str = ""  # its report, relative to the page; empty: not measured yet

    @property
    def complete(self) -> list[TrialResult]:
        """The trials that were trained to the end."""
        return [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]

    @property
    def chosen(self) -> TrialResult | None:
        """The complete trial that forgets least among those with about the largest gain, or None.

        Of the trials within the margin that gain: those whose gain is within one standard error of the
        largest, which the validation split cannot tell apart, as for α. Without a retention set, the largest
        gain; of equals, the first.
        """
        within = [trial for trial in self.complete if not trial.loses_more_than(self.margin)]
        gains = [(trial.gain, trial) for trial in within if trial.gain is not None and trial.gain.value > 0]
        if not gains:
            return None
        largest, best = max(gains, key=lambda one: one[0].value)
        error = (largest.high - largest.low) / (2 * _NORMAL_95)
        if best.change_in_general is None or not isfinite(error):
            return best
        close = [(gain, trial) for gain, trial in gains if gain.value >= largest.value - error]
        return max(close, key=lambda one: (one[1].change_in_general or 0.0, one[0].value))[1]


class TrialFile(Strict):
    """One trial."""

    number: int
    overrides: list[str]
    state: State
    value: float | None
    gain: Interval | None
    retention: Interval | None  # on the half that did not select α
    selecting: float | None  # on the half that did
    alpha: float | None
    seconds: float
    error: str


class TuningFile(Strict):
    """The content of tuning.json, version 1."""

    schema_version: Literal[1] = 1
    name: str
    corpus: str
    base: str
    metric: str
    base_value: float | None
    margin: float | None
    chosen: int | None
    final: str
    command: str
    versions: dict[str, Any]
    trials: list[TrialFile]


def to_file(tuning: Tuning) -> TuningFile:
    """The trials in the format of the file."""
    return TuningFile(
        name=tuning.name,
        corpus=tuning.corpus,
        base=tuning.base,
        metric=tuning.metric,
        base_value=finite(tuning.base_value),
        margin=tuning.margin,
        chosen=None if tuning.chosen is None else tuning.chosen.number,
        final=tuning.final,
        command=tuning.command,
        versions=dict(tuning.versions),
        trials=[
            TrialFile(
                number=trial.number,
                overrides=list(trial.overrides),
                state=trial.state,
                value=finite(trial.value),
                gain=None if trial.gain is None else interval(trial.gain),
                retention=None if trial.retention is None else interval(trial.retention),
                selecting=trial.selecting,
                alpha=trial.alpha,
                seconds=trial.seconds,
                error=trial.error,
            )
            for trial in tuning.trials
        ],
    )
