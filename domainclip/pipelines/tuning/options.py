"""The options of `tune`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

_TRIALS = 20


@dataclass(frozen=True)
class Budget:
    """How long to search: in trials, in seconds of this command, or both."""

    trials: int | None
    seconds: float | None
    runs_after: int = 0  # of the chosen recipe, that follow the search

    def has_trial(self, done: int) -> bool:
        """Whether another trial may begin after `done` trials."""
        return self.trials is None or done < self.trials

    def has_time(self, spent: float, trial: float | None, chosen: float) -> bool:
        """Whether a trial of so many seconds may go on; `spent` are gone, and the chosen one takes `chosen`.

        The runs that follow must be possible whichever of the two is chosen in the end. Of a trial of unknown
        length (None), half of the time must be left.
        """
        if self.seconds is None:
            return True
        if trial is None:
            return spent + self.runs_after * chosen <= self.seconds / 2
        return spent + trial + self.runs_after * max(trial, chosen) <= self.seconds


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """The options of the command."""

    trials: int | None = None
    seconds: float | None = None  # with neither, 20 trials
    strategies: Sequence[str] = ()  # empty: that of the recipe and the common ones
    metric: str = ""  # probe/validation/metric; empty: the first headline metric
    margin: float = 0.01  # loss on the retention set that α may cost
    seeds: int = 3  # of the chosen recipe
    final: bool = True  # whether the chosen recipe is trained and measured on the test split
    processes: int | None = None  # of each run
    quiet: bool = False
    command: str = ""

    @property
    def budget(self) -> Budget:
        """How long to search, with time left for the steps after it."""
        trials = _TRIALS if self.trials is None and self.seconds is None else self.trials
        return Budget(trials, self.seconds, self.seeds if self.final else 0)

    def say(self, *lines: str) -> None:
        """Print lines of progress, unless quiet."""
        for line in () if self.quiet else lines:
            print(line, file=sys.stderr, flush=True)
