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
    runs_after: int = 0  # that follow the search, each about as long as a trial

    def allows(self, done: int, spent: Sequence[float]) -> bool:
        """Whether another trial may begin, after `done` trials; `spent` are the seconds of those of now."""
        if self.trials is not None and done >= self.trials:
            return False
        if self.seconds is None or not spent:
            return True
        return sum(spent) + max(spent) * (1 + self.runs_after) <= self.seconds


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
