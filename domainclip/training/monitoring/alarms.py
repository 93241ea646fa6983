"""What goes wrong while a model trains, said while it can still be mended: one line, with the remedy.

The watch looks at the lines of metrics.jsonl, so a resumed run sees what the whole run has seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log
from statistics import fmean, median
from typing import Any

_WINDOW = 50  # steps that are looked at together
_CHANCE = 0.02  # relative distance from the loss of guessing that counts as none
_SPIKE = 10.0  # times the usual gradient norm
_COLLAPSED = 0.98  # mean cosine between embeddings of different pairs
_STALL = 0.3  # share of the time that is spent waiting for data
_RISES = 3  # looks at held-out data in a row that are worse than the one before
_DONE = {
    "warn": "training goes on",
    "stop": "training ends here",
    "lower_rate": "the learning rate is halved from here on, as at every such look",
}


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong, in one line."""

    code: str
    step: int
    text: str


class AlarmMonitor:
    """Looks at each step's figures; every kind of alarm is raised once."""

    def __init__(
        self, batch: int, bound: float, losses: frozenset[str], floor: float = inf, action: str = "warn"
    ) -> None:
        """`batch` pairs see each other; `bound` is where the logit scale is clamped; `losses` are the
        terms whose value at chance is known: ln of the batch, for the contrastive one. The general figure may
        fall `floor` below the base's before `action` is taken.
        """
        self.batch_size, self.max_scale, self.terms = batch, bound, losses
        self.max_retention_drop, self.action = floor, action
        self.losses_since_validation: list[float] = []  # training losses since the last look at held-out data
        self.validations: deque[tuple[float, float]] = deque(
            maxlen=_RISES + 1
        )  # their mean, and the held-out loss
        self.window: deque[Mapping[str, Any]] = deque(maxlen=_WINDOW)
        self.initial_scale: float | None = (
            None  # the scale of the first step: some bases are born at the bound
        )
        self.raised: list[Alarm] = []

    def update(self, record: Mapping[str, Any]) -> list[Alarm]:
        """The alarms that this step, or this look at held-out data, raises."""
        if "validation" in record:
            return self._raise(record["step"], self._held_out(record["validation"]))
        before = list(self.window)
        self.losses_since_validation.append(record["loss"])
        self.window.append(record)
        self.initial_scale = record["scale"] if self.initial_scale is None else self.initial_scale
        return self._raise(record["step"], self._found(record, before))

    def _raise(self, step: int, doubts: Iterator[tuple[str, str]]) -> list[Alarm]:
        known = {alarm.code for alarm in self.raised}
        found = [Alarm(code, int(step), f"step {step}: {text}") for code, text in doubts if code not in known]
        self.raised += found
        return found

    def _held_out(self, figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if self.losses_since_validation:
            self.validations.append((fmean(self.losses_since_validation), figures["loss"]))
            self.losses_since_validation = []
        steps = list(pairwise(self.validations))
        if len(steps) == _RISES and all(b[0] < a[0] and b[1] > a[1] for a, b in steps):
            yield (
                "overfitting",
                f"the validation loss has risen {_RISES} times in a row, to {figures['loss']:.3g}, while the "
                "training loss fell: train fewer epochs, lower train.learning_rate, or say "
                "train.final_weights=best",
            )
        lost = figures.get("lost", 0.0)
        if lost > self.max_retention_drop:
            yield (
                "retention",
                f"{figures['retention_of']} on the general set is {figures['retention']:.3g}, {lost:.3g} "
                f"worse than the base's; train.max_retention_drop allows {self.max_retention_drop:g}: "
                f"{_DONE[self.action]}; "
                "add the objective anchor, lower train.learning_rate, or set weight_interpolation",
            )

    def _found(self, record: Mapping[str, Any], before: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        if len(self.window) == _WINDOW:
            yield from self._whole_window(list(self.window))
        norms = [line["grad_norm"] for line in before if line["grad_norm"] > 0]
        if len(norms) >= _WINDOW // 2 and record["grad_norm"] > _SPIKE * median(norms):
            times = record["grad_norm"] / median(norms)
            yield (
                "gradient-spike",
                f"the gradient norm {record['grad_norm']:.3g} is {times:.0f} times the usual: lower "
                "train.learning_rate or train.max_grad_norm, or look at this step's items",
            )

    def _whole_window(self, lines: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        chance = log(self.batch_size)
        terms = [line["terms"].get("contrastive") for line in lines]
        known = "contrastive" in self.terms and None not in terms
        if known and all(abs(value / chance - 1) < _CHANCE for value in terms):
            yield (
                "chance",
                f"the contrastive loss has stood at chance (ln {self.batch_size} = {chance:.2f}) for "
                f"{_WINDOW} steps: nothing is learnt; raise train.learning_rate, or look whether pictures "
                "and captions belong together",
            )
        for side in ("image", "text"):
            cosine = min(line.get(f"{side}_cosine") or 0.0 for line in lines)
            if cosine > _COLLAPSED:
                yield (
                    f"collapse-{side}",
                    f"all {side} embeddings point one way (mean cosine {cosine:.3f}): lower "
                    "train.learning_rate, or add the objective anchor",
                )
        born_there = self.initial_scale is not None and self.initial_scale >= 0.99 * self.max_scale
        if not born_there and all(line["scale"] >= 0.999 * self.max_scale for line in lines):
            yield (
                "scale",
                f"the logit scale has stood at its bound {self.max_scale:g} for {_WINDOW} steps: captions "
                "may be too alike; look at the repeated captions, or lower train.learning_rate",
            )
        waited = median(line.get("waited") or 0.0 for line in lines)
        if waited > _STALL:
            yield (
                "data",
                f"{waited:.0%} of the time goes into waiting for pictures: raise train.workers, or prepare "
                "the corpus with domainclip data prepare",
            )
