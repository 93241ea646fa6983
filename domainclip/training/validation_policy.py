"""Validation policy: learning-rate reduction, early stopping, and choice of the best checkpoint.

All decisions are functions of the weights at the validated steps, and are saved with each checkpoint, so that
a resumed run decides as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

from domainclip.config.training import TrainConfig
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.tower_keys import TowerKeys
from domainclip.training.validation import ValidationSet


class ValidationPolicy:
    """The decisions of a run from its validations; `state` is all that it remembers."""

    def __init__(
        self,
        validation: ValidationSet | None,
        settings: TrainConfig,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """`state`: of the checkpoint that the run continues from."""
        self.validation, self.settings = validation, settings
        self.towers = TowerKeys()  # of one stage, in which the same weights learn
        saved = state or {}
        self.keeps_best_checkpoint = settings.keep_best_checkpoint or settings.final_weights == "best"
        self.best: list[float] | None = saved.get("best")  # step and loss of the best one so far
        self.halvings: int = saved.get("lowered", 0)  # of the learning rate
        self.stopped_at: int | None = saved.get("ended")  # step of an early stop
        self.best_metric: float = saved.get("best_metric", -inf)  # the headline metric, on the same pairs
        self.stale: int = saved.get("stale", 0)  # validations since the loss or that metric improved
        self.improved = False  # the last validation was the best, and its step is to be saved

    def state(self) -> dict[str, Any]:
        """Return the state as JSON, for the checkpoint."""
        return {
            "best": self.best,
            "lowered": self.halvings,
            "ended": self.stopped_at,
            "stale": self.stale,
            **({"best_metric": self.best_metric} if isfinite(self.best_metric) else {}),
        }

    @property
    def rate_factor(self) -> float:
        """Factor on the scheduled learning rate."""
        return 0.5**self.halvings

    @property
    def protected_steps(self) -> list[int]:
        """Steps whose checkpoints are never pruned."""
        return [int(self.best[0])] if self.best is not None and self.keeps_best_checkpoint else []

    def last_step(self, total: int) -> int:
        """Return the last step: `total`, or that of an early stop."""
        return total if self.stopped_at is None else self.stopped_at

    def final_step(self, total: int) -> int:
        """Return the step whose weights the run ends with."""
        return (
            int(self.best[0])
            if self.settings.final_weights == "best" and self.best
            else self.last_step(total)
        )

    def is_due(self, step: int, total: int) -> bool:
        """Return whether the weights after this step are measured."""
        every = self.settings.validate_every
        return self.validation is not None and every is not None and (step % every == 0 or step == total)

    def validate(self, step: int, total: int, model: DualEncoder) -> dict[str, Any] | None:
        """Measure the weights after this step and decide, when a validation is due; return the metrics."""
        self.improved = False
        if self.validation is None or not self.is_due(step, total):
            return None
        metrics = self.validation.measure(model, self.towers)
        better_loss = metrics["loss"] < (inf if self.best is None else self.best[1])  # NaN is never the best
        if better_loss:
            self.best, self.improved = [step, metrics["loss"]], self.keeps_best_checkpoint
        better_metric = metrics.get("figure", -inf) > self.best_metric
        if better_metric:
            self.best_metric = metrics["figure"]
        # The loss turns first where items are learned by heart; the metric may still rise then.
        self.stale = 0 if better_loss or better_metric else self.stale + 1
        if self.settings.patience is not None and self.stale >= self.settings.patience:
            self.stopped_at = step
        # By the bound, not the estimate, where the retention set is large enough to have one.
        drop = metrics.get("lost_at_most", metrics.get("lost", 0.0))
        if drop > self.settings.max_retention_drop:
            self.halvings += self.settings.on_retention_drop == "lower_rate"
            self.stopped_at = step if self.settings.on_retention_drop == "stop" else self.stopped_at
        return metrics
