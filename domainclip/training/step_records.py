"""The figures of a step, read from the device one step later, so that the host never waits for a step.

A step that is not finite is found by the device itself, which skips its update and those of later steps: when
its figures are read, the weights are those before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from domainclip.distributed import collectives
from domainclip.errors import DivergedError
from domainclip.training.batch_loss import StepFigures, StepOutput


@dataclass(frozen=True)
class PendingStep:
    """A step whose figures are on their way to main memory."""

    output: StepOutput
    values: Tensor  # in main memory: those of `output`, the gradient norm, the logit scale
    copied: torch.cuda.Event | None  # after which they are there; None: at once
    ids: list[str]  # of this process's pairs
    facts: dict[str, Any]  # the rest of its line of metrics.jsonl
    checked: bool  # before its update; in fp16, a gradient that overflows its loss scale is no divergence

    @classmethod
    def of(
        cls,
        output: StepOutput,
        norm: Tensor,
        scale: Tensor,
        ids: list[str],
        facts: dict[str, Any],
        *,
        checked: bool = False,
    ) -> PendingStep:
        """Start to copy the figures of a step."""
        rest = torch.stack([norm.detach(), scale.detach()]).to(output.values)
        values, copied = torch.cat([output.values, rest]).to("cpu", non_blocking=True), None
        if output.values.device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record()
        return cls(output, values, copied, ids, facts, checked)

    def record(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl.

        Raises: DivergedError for a step that is not finite, by the ids of the pairs at fault.
        """
        if self.copied is not None:
            self.copied.synchronize()
        *values, norm, scale = self.values.tolist()
        figures = StepFigures.of(values, self.output.names)
        if not self.checked:
            check_finite(self.output, figures.loss, norm, self.ids, self.facts["step"])
        return {
            **self.facts,
            "loss": figures.loss,
            "terms": figures.terms,
            "scale": scale,
            "grad_norm": norm,
            "image_cosine": figures.image_cosine,
            "text_cosine": figures.text_cosine,
            "without_negative": figures.without_negative,
        }


@dataclass
class UpdateGuard:
    """Makes the optimizer skip its update on the device, from the first step on that is not finite."""

    optimizer: torch.optim.Optimizer
    diverged: Tensor | None = None  # () 1.0 once a step was not finite

    def watch(self, loss: Tensor, norm: Tensor) -> None:
        """Look at a step before its update, without waiting for it."""
        bad = (~(loss.isfinite() & norm.isfinite())).to(torch.float32)
        self.diverged = bad if self.diverged is None else torch.maximum(self.diverged, bad)
        # As the loss scale of fp16 does: fused AdamW leaves weights, moments and count as they are.
        self.optimizer.found_inf = self.diverged  # type: ignore[attr-defined]

    @staticmethod
    def is_supported(optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer has such a switch."""
        return isinstance(optimizer, torch.optim.AdamW)


def check_finite(output: StepOutput, loss: float, norm: float, ids: list[str], step: int) -> None:
    """Refuse a step, counted from 1, whose loss or gradient is not finite; all processes call it.

    Raises: DivergedError.
    """
    if isfinite(loss) and isfinite(norm):
        return
    # The loss is equal on all processes, so all come here; the row at fault is on one of them.
    local = [ids[row] for row in output.non_finite_rows]
    at_fault = [id for share in collectives.gather_objects(local) for id in share] or ids
    more = f" and {len(at_fault) - 8} more" if len(at_fault) > 8 else ""
    raise DivergedError(
        f"step {step}: loss {loss}, gradient norm {norm}: stopped before the step, weights are "
        f"unchanged; items: {', '.join(at_fault[:8])}{more}; lower train.learning_rate, then start again"
    )
