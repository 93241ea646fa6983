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
        self.validation, self.settings = held, settings
        known = facts or {}
        self.keeps_best_checkpoint = settings.keep_best_checkpoint or settings.final_weights == "best"
        self.best: list[float] | None = known.get("best")  # step and loss of the best step so far
        self.halvings: int = known.get("lowered", 0)
        self.stopped_at: int | None = known.get("ended")
        self.improved = False  # the step that was looked at last is the best, and is to be saved

    def state(self) -> dict[str, Any]:
        """JSON, for the checkpoint."""
        return {"best": self.best, "lowered": self.halvings, "ended": self.stopped_at}

    @property
    def rate_factor(self) -> float:
        """Of the scheduled learning rate."""
        return 0.5**self.halvings

    @property
    def protected_steps(self) -> list[int]:
        """Steps whose checkpoint is never pruned."""
        return [int(self.best[0])] if self.best is not None and self.keeps_best_checkpoint else []

    def last_step(self, total: int) -> int:
        """The last step."""
        return total if self.stopped_at is None else self.stopped_at

    def final_step(self, total: int) -> int:
        """The step whose weights the run ends with."""
        return (
            int(self.best[0])
            if self.settings.final_weights == "best" and self.best
            else self.last_step(total)
        )

    def validate(self, step: int, total: int, model: DualEncoder) -> dict[str, Any] | None:
        """What the weights reach after this step, when it is time to look; decides what follows from it."""
        self.improved = False
        every = self.settings.validate_every
        if self.validation is None or every is None or (step % every and step != total):
            return None
        found = self.validation.measure(model)
        if found["loss"] < (inf if self.best is None else self.best[1]):  # no number is no best
            self.best, self.improved = [step, found["loss"]], self.keeps_best_checkpoint
        if found.get("lost", 0.0) > self.settings.max_retention_drop:
            self.halvings += self.settings.on_retention_drop == "lower_rate"
            self.stopped_at = step if self.settings.on_retention_drop == "stop" else self.stopped_at
        return found
