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


@dataclass
class Costs:
    """The seconds of each stage so far, by strategy."""

    _known: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, work: Work, seconds: float) -> None:
        """Record a stage."""
        self._known[work.strategy].append((work.epochs, seconds))

    def predict(self, work: Work) -> float | None:
        """Seconds; None where nothing is known of the strategy.

        Those of the cheapest stage that was as long, or else of the longest in proportion to the epochs: too
        many, since encoding and evaluation take as long for any number of epochs. Before its first stage, a
        strategy is taken to cost what a cheaper one has cost.
        """
        known = self._known.get(work.strategy)
        if not known and work.strategy in COMMON:
            cheaper = COMMON[: COMMON.index(work.strategy)]
            less = [self.predict(replace(work, strategy=name)) for name in cheaper if name in self._known]
            return max((seconds for seconds in less if seconds is not None), default=None)
        if not known:
            return None
        as_long = [seconds for epochs, seconds in known if epochs >= work.epochs]
        longest, seconds = max(known)
        return min(as_long, default=seconds * work.epochs / longest)
