"""The trials of `tune`, one after the other.

The recipe as it is comes first, then each other strategy with its defaults, then the best of these with
components that the recipe does not have, then what optuna proposes. A trial has two stages: a third of its
epochs, and all of them; of the first stages, the worse two thirds go no further (successive halving
[arXiv:1502.07943]). What is tried next is a function of the seed and of the trials before it (TPE
[arXiv:2304.11127]). So nothing is stored: the same command replays the trials that are complete, whose runs
are read and not trained again, and continues where it was stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from domainclip.errors import DomainclipError, RecipeError, library
from domainclip.pipelines.tuning.costs import Costs, Work
from domainclip.pipelines.tuning.options import Budget
from domainclip.pipelines.tuning.search_space import SearchSpace
from domainclip.pipelines.tuning.trials import Stage
from domainclip.report.tuning_results import TrialResult

FIRST_STAGE = 1 / 3  # of the epochs
_GO_ON = 3  # one in so many of the first stages
_RANDOM_TRIALS = 6  # before the sampler models what came of them
_MOST_FAILED = 5  # in a row
_MOST_PROPOSALS = 20  # for one trial, of which all take longer than the budget allows
# A strategy that gains less than another with its defaults, and whose first stage takes more of the budget.
_EXPENSIVE = 1 / 20
_MISSING = "tune: optuna is not installed: pip install 'domainclip[tune]'"

# Number of a trial, its overrides, the share of its epochs: the end of that stage.
RunStage = Callable[[int, Sequence[str], float], Stage]


@dataclass(frozen=True)
class _First:
    """The first stage of a trial."""

    strategy: str
    gain: float
    seconds: float


@dataclass
class Search:
    """An optuna study of one space; `results` are those of the trials so far."""

    space: SearchSpace
    seed: int
    run_stage: RunStage
    work_of: Callable[[Sequence[str]], Work]  # of overrides; RecipeError where they do not fit the recipe
    budget: Budget
    margin: float | None = None  # loss on the retention set beyond which a trial is not chosen
    say: Callable[[str], None] = lambda _: None
    results: list[TrialResult] = field(default_factory=list)
    _costs: Costs = field(default_factory=Costs)
    _spent: float = 0.0  # seconds of this command
    _firsts: list[_First] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optuna = require_optuna()
        self._optuna.logging.set_verbosity(logging.ERROR)
        pruner = self._optuna.pruners.NopPruner()
        self._study = self._optuna.create_study(direction="maximize", pruner=pruner)

    def trials(self, first: Stage) -> Iterator[TrialResult]:
        """Each trial as it ends; `first` is the first stage of the recipe as it is.

        Raises: DomainclipError when several trials in a row fail; whatever a stage raises.
        """
        yield from self._opening(first)
        self._leave_out_expensive()
        while (proposal := self._proposal()) is not None:
            yield self._propose(*proposal)
            last = self.results[-_MOST_FAILED:]
            if len(last) == _MOST_FAILED and all(result.state == "failed" for result in last):
                raise DomainclipError(f"tune: {_MOST_FAILED} trials in a row failed: {last[-1].error}")

    def _opening(self, first: Stage) -> list[TrialResult]:
        """The recipe, each other strategy, additions: first stages of all, then the recipe and the best."""
        self.results.append(_stopped(self._count(first, [], FIRST_STAGE)))
        for lines in self.space.defaults():
            if not self.budget.has_trial(len(self.results)):
                break
            if not self._has_time(lines):
                self.say(f"{lines[0]} is left out: with its defaults it takes more time than the budget has")
                self.space = self.space.without(self.work_of(lines).strategy)
                continue
            self._begin(lines)
        for line in self.space.additions:
            self._try_addition(line)
        goes_on = True
        for result in self._by_merit():
            number, lines = result.number, [*result.overrides]
            if (goes_on or number == 0) and self._has_time(lines):
                self.say(f"trial {number} continues, with a gain of {self._merit(result):+.3f} so far")
                self.results[number] = self._count(self.run_stage(number, lines, 1.0), lines, 1.0)
                goes_on = False
        return self.results

    def _begin(self, lines: Sequence[str]) -> TrialResult:
        """The first stage of a trial of the opening."""
        number = len(self.results)
        self.say(f"trial {number}: {'; '.join(lines)}, a third of its epochs")
        result = _stopped(self._count(self.run_stage(number, lines, FIRST_STAGE), lines, FIRST_STAGE))
        self.results.append(result)
        return result

    def _try_addition(self, line: str) -> None:
        """The best first stage again with an addition; if it gained more, all trials that follow have it."""
        best = next(iter(self._by_merit()), None)
        if best is None or not self.budget.has_trial(len(self.results)):
            return
        lines = [*best.overrides, line]
        if self._has_time(lines):
            result = self._begin(lines)
            if result.gain is not None and self._merit(result) > self._merit(best):
                self.space = self.space.with_fixed(line)

    def _by_merit(self) -> list[TrialResult]:
        """The trials that did not fail, the best first; of equals, the earlier."""
        return sorted((r for r in self.results if r.gain is not None), key=lambda r: -self._merit(r))

    def _propose(self, lines: list[str], proposed: Any) -> TrialResult:
        """A trial that the study has proposed; its second stage where the first is among the better third."""
        number, states = len(self.results), self._optuna.trial.TrialState
        result = self._count(self.run_stage(number, lines, FIRST_STAGE), lines, FIRST_STAGE)
        if result.gain is not None:
            proposed.report(result.gain.value, 1)
            better = sum(first.gain > self._merit(result) for first in self._firsts)
            if better < max(1, len(self._firsts) // _GO_ON) and self._has_time(lines):
                result, state = self._count(self.run_stage(number, lines, 1.0), lines, 1.0), states.COMPLETE
            else:
                result, state = _stopped(result), states.PRUNED
        if result.gain is None:
            result, state = replace(result, state="failed"), states.FAIL
        # Above 0: such a trial cannot be chosen, and the sampler proposes fewer like it.
        proposed.set_constraint("margin", 1.0 if result.loses_more_than(self.margin) else 0.0)
        complete = state == states.COMPLETE and result.gain is not None
        self._study.tell(proposed, result.gain.value if complete and result.gain else None, state)
        self.results.append(result)
        return result

    def _count(self, stage: Stage, lines: Sequence[str], share: float) -> TrialResult:
        """The result of a stage, whose time is counted."""
        self._spent += stage.seconds
        if stage.result.gain is not None:
            work = self.work_of(lines)
            self._costs.add(replace(work, epochs=work.epochs * share), stage.whole, stage.result.seconds)
            if share == FIRST_STAGE:
                self._firsts.append(_First(work.strategy, self._merit(stage.result), stage.whole))
        return replace(stage.result, overrides=lines)

    def _merit(self, result: TrialResult) -> float:
        """The gain; none for a trial that loses more than the margin, and so cannot be chosen."""
        assert result.gain is not None
        gain = result.gain.value
        return min(gain, 0.0) if result.loses_more_than(self.margin) else gain

    def _has_time(self, lines: Sequence[str]) -> bool:
        return self.budget.has_time(self._spent, self._predicted(lines), self._chosen_seconds)

    def _predicted(self, lines: Sequence[str]) -> float | None:
        try:
            return self._costs.predict(self.work_of(lines))
        except RecipeError:  # its stage fails, and the result has the reason
            return None

    @property
    def _chosen_seconds(self) -> float:
        """Of the best trial so far, to the end."""
        gains = {r.number: self._merit(r) for r in self.results if r.state == "complete" and r.gain}
        if not gains:
            return 0.0
        best = max(gains, key=lambda number: gains[number])
        return self._predicted(self.results[best].overrides) or 0.0

    def _leave_out_expensive(self) -> None:
        """Of the strategies with their defaults, keep the best, and those of which many trials fit."""
        if self.budget.seconds is None:
            return
        # Of each strategy its best first stage, of several: with and without an addition.
        by_strategy = {first.strategy: first for first in sorted(self._firsts, key=lambda first: first.gain)}
        best = max((first.gain for first in self._firsts), default=0.0)
        for first in by_strategy.values():
            expensive = first.seconds > _EXPENSIVE * self.budget.seconds
            if expensive and first.gain < best and first.strategy in self.space.by_strategy:
                self.space = self.space.without(first.strategy)
                self.say(
                    f"{first.strategy} is left out: with its defaults it gains less than another strategy, "
                    f"and a first stage takes {first.seconds:.0f} of {self.budget.seconds:.0f} s"
                )

    def _proposal(self) -> tuple[list[str], Any] | None:
        """The overrides that optuna proposes next, with its trial; None when the budget is used up."""
        if not self.budget.has_trial(len(self.results)):
            return None
        for attempt in range(_MOST_PROPOSALS):
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=self.seed * 10_000 + len(self.results) + 1000 * attempt,
                n_startup_trials=_RANDOM_TRIALS,
            )
            proposed = self._study.ask()
            lines = self.space.draw(proposed)
            if self._has_time(lines):
                return lines, proposed
            self._study.tell(proposed, state=self._optuna.trial.TrialState.FAIL)
        return None


def _stopped(result: TrialResult) -> TrialResult:
    """The result of a trial that ends after its first stage."""
    return replace(result, state="failed" if result.gain is None else "stopped early")


def require_optuna() -> Any:
    """The module.

    Raises: RecipeError when it is not installed.
    """
    return library("optuna", _MISSING)
