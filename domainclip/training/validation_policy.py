"""What follows from looking at held-out data: a lower rate, an early end, the step whose weights are taken.

All of it is a function of the weights at the steps that were looked at, and is saved with each checkpoint, so
a resumed run takes the same course.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from domainclip.config.training import TrainConfig
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.validation import ValidationSet


class ValidationPolicy:
    """What a run has decided from what it saw on held-out data; `facts` is all that it remembers."""

    def __init__(
        self, held: ValidationSet | None, settings: TrainConfig, facts: Mapping[str, Any] | None = None
    ) -> None:
        """`facts`: of the checkpoint that the run continues from."""
        self.held, self.settings = held, settings
        known = facts or {}
        self.keeps = settings.keep_best is not None or settings.take == "best"
        self.best: list[float] | None = known.get("best")  # step and loss of the best step so far
        self.lowered: int = known.get("lowered", 0)
        self.ended: int | None = known.get("ended")
        self.improved = False  # the step that was looked at last is the best, and is to be saved

    def facts(self) -> dict[str, Any]:
        """JSON, for the checkpoint."""
        return {"best": self.best, "lowered": self.lowered, "ended": self.ended}

    @property
    def share(self) -> float:
        """Of the scheduled learning rate."""
        return 0.5**self.lowered

    @property
    def spared(self) -> list[int]:
        """Steps whose checkpoint is never pruned."""
        return [int(self.best[0])] if self.best is not None and self.keeps else []

    def end(self, total: int) -> int:
        """The last step."""
        return total if self.ended is None else self.ended

    def taken(self, total: int) -> int:
        """The step whose weights the run ends with."""
        return int(self.best[0]) if self.settings.take == "best" and self.best else self.end(total)

    def look(self, step: int, total: int, towers: DualEncoder) -> dict[str, Any] | None:
        """What the weights reach after this step, when it is time to look; decides what follows from it."""
        self.improved = False
        every = self.settings.validate_every
        if self.held is None or every is None or (step % every and step != total):
            return None
        found = self.held.measure(towers)
        if found["loss"] < (inf if self.best is None else self.best[1]):  # no number is no best
            self.best, self.improved = [step, found["loss"]], self.keeps
        if found.get("lost", 0.0) > self.settings.retention_floor:
            self.lowered += self.settings.on_retention_floor == "lower_rate"
            self.ended = step if self.settings.on_retention_floor == "stop" else self.ended
        return found
