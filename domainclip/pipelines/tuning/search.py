"""The trials that optuna proposes, one after the other.

A trial has two stages: a third of its epochs, and all of them; of the first stages, the worse two thirds go
no further (successive halving [arXiv:1502.07943]). What is tried next is a function of the seed and of the
trials before it (TPE [arXiv:2304.11127]). So nothing is stored: the same command replays the trials that are
complete, whose runs are read and not trained again, and continues where it was stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from domainclip.errors import DomainclipError, library
from domainclip.pipelines.tuning.options import Budget
from domainclip.pipelines.tuning.search_space import SearchSpace
from domainclip.pipelines.tuning.trials import Stage
from domainclip.report.tuning_results import TrialResult

_FIRST_STAGE = 1 / 3  # of the epochs
_RANDOM_TRIALS = 6  # before the sampler models what came of them
_MOST_FAILED = 5  # in a row
_MISSING = "tune: optuna is not installed: pip install 'domainclip[tune]'"


# Number of a trial, its overrides, the share of its epochs: the end of that stage.
RunStage = Callable[[int, list[str], float], Stage]


@dataclass
class Search:
    """An optuna study of one space; `results` are those of the trials so far."""

    space: SearchSpace
    seed: int
    run_stage: RunStage
    results: list[TrialResult] = field(default_factory=list)
    _spent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optuna = require_optuna()
        self._optuna.logging.set_verbosity(logging.ERROR)
        pruner = self._optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        self._study = self._optuna.create_study(direction="maximize", pruner=pruner)

    def trials(self, first: Stage, budget: Budget) -> Iterator[TrialResult]:
        """Each trial as it ends; `first` is that of the recipe as it is.

        Raises: DomainclipError when several trials in a row fail; whatever a stage raises.
        """
        yield self._record(first.result, first.seconds)
        while budget.allows(len(self.results), self._spent):
            yield self._record(*self._next_trial(len(self.results)))
            last = self.results[-_MOST_FAILED:]
            if len(last) == _MOST_FAILED and all(result.state == "failed" for result in last):
                raise DomainclipError(f"tune: {_MOST_FAILED} trials in a row failed: {last[-1].error}")

    def _record(self, result: TrialResult, seconds: float) -> TrialResult:
        self.results.append(result)
        if seconds > 0:
            self._spent.append(seconds)
        return result

    def _next_trial(self, number: int) -> tuple[TrialResult, float]:
        """One trial and the seconds that it took."""
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=self.seed * 10_000 + number, n_startup_trials=_RANDOM_TRIALS
        )
        trial, states = self._study.ask(), self._optuna.trial.TrialState
        lines, seconds = self.space.draw(trial), 0.0
        for step, share in ((1, _FIRST_STAGE), (2, 1.0)):
            stage = self.run_stage(number, lines, share)
            result, seconds = stage.result, seconds + stage.seconds
            if result.state == "failed" or result.gain is None:
                self._study.tell(trial, state=states.FAIL)
                return replace(result, state="failed"), seconds
            trial.report(result.gain.value, step)
            if step == 1 and trial.should_prune():
                self._study.tell(trial, state=states.PRUNED)
                return replace(result, state="stopped early"), seconds
            gain = result.gain.value
        self._study.tell(trial, gain)
        return result, seconds


def require_optuna() -> Any:
    """The module.

    Raises: RecipeError when it is not installed.
    """
    return library("optuna", _MISSING)
