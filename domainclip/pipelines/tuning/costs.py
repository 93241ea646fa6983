"""What a trial of `tune` costs, by what those before it have cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from domainclip.pipelines.tuning.search_space import COMMON


@dataclass(frozen=True)
class Work:
    """What decides the time of a trial."""

    strategy: str
    epochs: float


@dataclass(frozen=True)
class _Past:
    """A stage that has ended."""

    epochs: float
    training: float  # seconds of its steps
    rest: float  # of all else: the start, encoding, evaluation


@dataclass
class Costs:
    """The seconds of each stage so far, by strategy."""

    _past: dict[str, list[_Past]] = field(default_factory=lambda: defaultdict(list))

    def add(self, work: Work, seconds: float, training: float) -> None:
        """Record a stage of so many seconds, of which its steps took `training`."""
        self._past[work.strategy].append(_Past(work.epochs, training, max(0.0, seconds - training)))

    def predict(self, work: Work) -> float | None:
        """Seconds; None where nothing is known of the strategy.

        Training in proportion to the epochs, by the longest stage; and the least that all else has taken,
        since what one stage encodes lies in the cache for the next. Before its first stage, a strategy is
        taken to cost what a cheaper one has cost.
        """
        past = self._past.get(work.strategy)
        if not past and work.strategy in COMMON:
            cheaper = COMMON[: COMMON.index(work.strategy)]
            less = [self.predict(replace(work, strategy=name)) for name in cheaper if name in self._past]
            return max((seconds for seconds in less if seconds is not None), default=None)
        if not past:
            return None
        longest = max(past, key=lambda stage: stage.epochs)
        return longest.training * work.epochs / longest.epochs + min(stage.rest for stage in past)
