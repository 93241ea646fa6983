"""Alarms: what goes wrong while a model trains, in one line with the remedy, while it can still be corrected.

The monitor reads the records of metrics.jsonl, so a resumed run has the alarms of the whole run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log
from statistics import fmean, median
from typing import Any

_WINDOW = 50  # steps that are judged together
_CHANCE = 0.02  # relative distance from the loss of guessing that counts as none
_SPIKE = 10.0  # times the usual gradient norm
_COLLAPSED = 0.98  # mean cosine between embeddings of different pairs
_STALL = 0.3  # share of the time that is spent waiting for data
_NO_NEGATIVE = 0.2  # share of the pairs that may have no negative in their batch
_RISES = 3  # consecutive validations with a higher loss than the one before
_ACTIONS = {
    "warn": "training continues",
    "stop": "training ends",
    "lower_rate": "the learning rate is halved, now and after every further validation with such a drop",
}


@dataclass(frozen=True)
class Alarm:
    """One fault, in one line."""

    code: str
    step: int
    text: str


class AlarmMonitor:
    """Checks the record of each step and of each validation; every kind of alarm is raised once."""

    def __init__(
        self,
        batch_size: int,
        max_scale: float,
        terms: frozenset[str],
        max_retention_drop: float = inf,
        action: str = "warn",
    ) -> None:
        """`terms` of the loss: of the contrastive one, the value at chance is ln of the batch size.

        `max_scale` is the bound of the logit scale; `action` follows when the retention metric falls further
        below that of the base than `max_retention_drop`.
        """
        self.batch_size, self.max_scale, self.terms = batch_size, max_scale, terms
        self.max_retention_drop, self.action = max_retention_drop, action
        self.losses_since_validation: list[float] = []  # of the training
        # Mean training loss since the previous validation, and the validation loss.
        self.validations: deque[tuple[float, float]] = deque(maxlen=_RISES + 1)
        self.window: deque[Mapping[str, Any]] = deque(maxlen=_WINDOW)
        self.initial_scale: float | None = None  # of the first step: some models start at the bound
        self.raised: list[Alarm] = []

    def update(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Return the new alarms of the record of a step or a validation."""
        if "validation" in record:
            return self._raise(record["step"], self._check_validation(record["validation"]))
        before = list(self.window)
        self.losses_since_validation.append(record["loss"])
        self.window.append(record)
        self.initial_scale = record["scale"] if self.initial_scale is None else self.initial_scale
        return self._raise(record["step"], self._check_step(record, before))

    def _raise(self, step: int, faults: Iterator[tuple[str, str]]) -> list[Alarm]:
        known = {alarm.code for alarm in self.raised}
        new = [Alarm(code, int(step), f"step {step}: {text}") for code, text in faults if code not in known]
        self.raised += new
        return new

    def _check_validation(self, metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if self.losses_since_validation:
            self.validations.append((fmean(self.losses_since_validation), metrics["loss"]))
            self.losses_since_validation = []
        steps = list(pairwise(self.validations))
        if len(steps) == _RISES and all(b[0] < a[0] and b[1] > a[1] for a, b in steps):
            yield (
                "overfitting",
                f"the validation loss has risen {_RISES} times in a row, to {metrics['loss']:.3g}, while the "
                "training loss fell: train fewer epochs, lower train.learning_rate, or set "
                "train.final_weights=best",
            )
        drop = metrics.get("lost", 0.0)
        bound = metrics.get("lost_at_most", drop)
        if bound > self.max_retention_drop:
            most = f" (at most {bound:.3g}, with 95 % confidence)" if "lost_at_most" in metrics else ""
            yield (
                "retention",
                f"{metrics['retention_of']} on the retention set is {metrics['retention']:.3g}, {drop:.3g} "
                f"worse than the base's{most}; train.max_retention_drop allows {self.max_retention_drop:g}: "
                f"{_ACTIONS[self.action]}; add the objective anchor, lower train.learning_rate, or set "
                "weight_interpolation",
            )

    def _check_step(
        self, record: Mapping[str, Any], before: list[Mapping[str, Any]]
    ) -> Iterator[tuple[str, str]]:
        # From the first step on: such a run is not worth fifty steps.
        alone = fmean(line.get("without_negative", 0.0) for line in self.window)
        if alone > _NO_NEGATIVE:
            yield (
                "no-negative",
                f"{alone:.0%} of the pairs of the last {_steps(len(self.window))} had no negative, since all "
                "other pairs of their batch have the same caption, group or labels: they teach nothing; "
                "raise train.batch_size, check corpus.columns.group and the captions, or leave out "
                "curation.cluster_batches",
            )
        if len(self.window) == _WINDOW:
            yield from self._check_window(list(self.window))
        norms = [line["grad_norm"] for line in before if line["grad_norm"] > 0]
        if len(norms) >= _WINDOW // 2 and record["grad_norm"] > _SPIKE * median(norms):
            times = record["grad_norm"] / median(norms)
            yield (
                "gradient-spike",
                f"the gradient norm {record['grad_norm']:.3g} is {times:.0f} times the usual: lower "
                "train.learning_rate or train.max_grad_norm, or check this step's items",
            )

    def _check_window(self, lines: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        chance = log(self.batch_size)
        terms = [line["terms"].get("contrastive") for line in lines]
        known = "contrastive" in self.terms and None not in terms
        if known and all(abs(value / chance - 1) < _CHANCE for value in terms):
            yield (
                "chance",
                f"the contrastive loss has stayed at chance (ln {self.batch_size} = {chance:.2f}) for "
                f"{_WINDOW} steps: the model does not learn; raise train.learning_rate, or check "
                "that images and captions match",
            )
        for side in ("image", "text"):
            cosine = min(line.get(f"{side}_cosine") or 0.0 for line in lines)
            if cosine > _COLLAPSED:
                yield (
                    f"collapse-{side}",
                    f"all {side} embeddings point in one direction (mean cosine {cosine:.3f}): lower "
                    "train.learning_rate, or add the objective anchor",
                )
        starts_there = self.initial_scale is not None and self.initial_scale >= 0.99 * self.max_scale
        if not starts_there and all(line["scale"] >= 0.999 * self.max_scale for line in lines):
            yield (
                "scale",
                f"the logit scale has stayed at its bound {self.max_scale:g} for {_WINDOW} steps: captions "
                "may be too similar; check the repeated captions, or lower train.learning_rate",
            )
        waited = median(line.get("waited") or 0.0 for line in lines)
        if waited > _STALL:
            yield (
                "data",
                f"{waited:.0%} of the time is spent waiting for images: raise train.workers, or prepare "
                "the corpus with domainclip data prepare",
            )


def _steps(n: int) -> str:
    return "step" if n == 1 else f"{n} steps"
