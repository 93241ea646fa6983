"""One stage of training: its model, optimizer, data and monitors, and one step of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import exp, isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip.config.training import TrainConfig
from domainclip.data.batching.batch import Batch
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import heartbeat
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training import fsdp, loop_checkpoints, out_of_memory
from domainclip.training import micro_batch_size as training_micro_batch_size
from domainclip.training import optimizer as training_optimizer
from domainclip.training import precision as training_precision
from domainclip.training import step as training_step
from domainclip.training.batch_loss import StepOutput
from domainclip.training.memory import Memory
from domainclip.training.monitoring.alarms import Alarm, AlarmMonitor
from domainclip.training.monitoring.metrics_log import MetricsLog
from domainclip.training.monitoring.progress import ProgressDisplay
from domainclip.training.pair_selection import stage_batches
from domainclip.training.run_context import RunContext
from domainclip.training.setup import StageInputs, StepRange, TrainingSetup, to_step_batch
from domainclip.training.state import TrainingState
from domainclip.training.step_records import PendingStep, UpdateGuard, check_finite
from domainclip.training.validation_policy import ValidationPolicy
from domainclip.training.views import StepBatch
from domainclip.training.weight_average import WeightAverage

log = logging.getLogger("domainclip")


@dataclass(frozen=True)
class StageRun:
    """Everything that a step of a stage works with."""

    inputs: StageInputs
    accelerator: Accelerator
    model: DualEncoder  # that of the setup, sharded where train.fsdp asks for it
    parallel_model: Any  # the model as Accelerate wraps it
    optimizer: Any  # likewise
    state: TrainingState
    policy: ValidationPolicy
    steps: StepRange  # of this stage
    total: int  # steps of the whole run
    batches: Iterator[Batch]
    metrics: MetricsLog
    alarms: AlarmMonitor
    unusable: dict[str, UnusableItem]  # by place
    guard: UpdateGuard | None  # None: each step is read before its update
    pending: list[PendingStep] = field(default_factory=list)  # the last step, until it is read

    @classmethod
    def begin(cls, inputs: StageInputs, saved: Path | None, run: RunContext) -> StageRun:
        """Shard, restore and wrap what the loop works with, at the step of the checkpoint `saved`."""
        setup, settings, steps = inputs.setup, inputs.setup.settings, inputs.steps
        model = _shard(setup, run.accelerator)
        weights = model.weights()
        learning = {name: weight for name, weight in weights.items() if inputs.factors[name] > 0}
        checkpointed = {name: weight for name, weight in weights.items() if setup.factors.get(name, 0) > 0}
        optimizer = training_optimizer.make_optimizer(
            model, inputs.factors, settings, setup.peak_rate, inputs.start_weights
        )
        memory = initial_memory(setup)
        state = TrainingState(
            0, learning | checkpointed, optimizer, settings.micro_batch_size, run.accelerator.scaler, memory
        )
        if settings.weight_average is not None:
            state.average = WeightAverage(state.weights, settings.weight_average, setup.total_steps)
        facts = loop_checkpoints.restore(state, saved, steps.begin)
        policy = ValidationPolicy(setup.validation, settings, facts.get("course"))
        model.set_train_mode({name.split("/")[0] for name in learning})
        parallel_model, wrapped = fsdp.prepare(model, optimizer, run.accelerator)
        metrics = MetricsLog(run.folder / "metrics.jsonl", state.step, setup.validation, run.trackers)
        batch_size = min(settings.batch_size, len(inputs.pairs))
        alarms = _alarms(setup, batch_size, metrics.earlier_records)
        return cls(
            inputs=inputs,
            accelerator=run.accelerator,
            model=model,
            parallel_model=parallel_model,
            optimizer=wrapped,
            state=state,
            policy=policy,
            steps=steps,
            total=setup.total_steps,
            batches=stage_batches(inputs, state, model, batch_size),
            metrics=metrics,
            alarms=alarms,
            unusable={item.location: item for item in inputs.unusable},
            guard=_guard(model, optimizer, run.accelerator),
        )

    @property
    def settings(self) -> TrainConfig:
        """The recipe's section `train`."""
        return self.inputs.setup.settings

    @property
    def batch_size(self) -> int:
        """Pairs of a step, over all processes."""
        return min(self.settings.batch_size, len(self.inputs.pairs))

    def train_step(self, display: ProgressDisplay) -> None:
        """Train one step; the step before it is read, and its line of metrics.jsonl written.

        Raises: DivergedError.
        """
        state, started = self.state, time.monotonic()
        heartbeat.update("reading data", state.step + 1)
        rows = next(self.batches)
        waited = time.monotonic() - started
        heartbeat.update("computing")
        self.unusable.update((item.location, item) for item in rows.unusable)
        batch = to_step_batch(self.inputs, rows, state.step, self.accelerator.device)
        output, norm = self._update_or_explain(batch, rows)
        state.step += 1
        if state.average is not None:
            state.average.update(state.step)
        self.read_step(display)  # on a GPU it waits here, while this step is computed already
        facts = {
            "step": state.step,
            "epoch": state.step * self.batch_size / self.inputs.pairs.epoch_pairs,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "pairs_per_second": display.rate(state.step),
            "waited": waited / max(1e-9, time.monotonic() - started),
            **({} if state.selected is None else {"selected_pairs": len(state.selected)}),
        }
        scale, checked = self.model.scale, self.guard is None
        self.pending.append(PendingStep.of(output, norm, scale, rows.ids, facts, checked=checked))

    def read_step(self, display: ProgressDisplay) -> None:
        """Log the last step, unless that is done; all processes call it at the same step.

        Raises: DivergedError.
        """
        while self.pending:
            record = self.pending.pop(0).record()
            _warn(self.alarms.update(record))
            if is_due(record["step"], self.settings.log_every, self.total):
                self.metrics.write(record)
            display.show(record["step"], record)

    def _update_or_explain(self, batch: StepBatch, rows: Batch) -> tuple[StepOutput, Tensor]:
        """Update the weights; without enough memory, with a smaller micro-batch if it is the first step.

        Raises: ModelError for a later one: dropout is drawn by micro-batch, so its size is fixed by then.
        """
        state, pairs = self.state, len(batch.keys)
        size = None
        try:
            size = self._micro_batch_size(batch)
            if state.step > self.steps.begin:
                return self._update_weights(batch, rows, size)
            output, state.micro_batch_size = out_of_memory.fit_micro_batch(
                lambda tried: self._update_weights(batch, rows, tried), self._free_gradients, size, pairs
            )
            return output
        except torch.OutOfMemoryError:
            raise out_of_memory.does_not_fit(min(size or pairs, pairs)) from None

    def _micro_batch_size(self, batch: StepBatch) -> int | None:
        """Return the pairs to hold at once, measured where the recipe leaves it open."""
        state = self.state
        if state.micro_batch_size == "auto":
            state.micro_batch_size = training_micro_batch_size.find_micro_batch_size(
                self.model, batch, self.inputs.setup.objectives, self.accelerator, state.memory
            )
        return state.micro_batch_size

    def _free_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()

    def _update_weights(self, batch: StepBatch, rows: Batch, micro: int | None) -> tuple[StepOutput, Tensor]:
        """Take an optimizer step; return the step's output and the norm of all gradients."""
        settings, step = self.settings, self.state.step
        factor = training_optimizer.learning_rate_factor(
            step - self.steps.begin, self.steps.end - self.steps.begin, settings.warmup
        )
        training_optimizer.set_rate(self.state.optimizer, self.policy.rate_factor * factor)
        seed = settings.seed * 1_000_003 + step
        output = training_step.compute_gradients(
            self.parallel_model,
            self.model,
            batch,
            self.inputs.setup.objectives,
            micro,
            seed,
            self.accelerator,
            self.state.memory,
        )
        norm = fsdp.clip_gradients(self.model, self.optimizer, settings.max_grad_norm, self.accelerator)
        if self.guard is not None:
            self.guard.watch(output.values[0], norm)
        elif not (isfinite(output.loss) and training_precision.overflowed(float(norm), self.accelerator)):
            check_finite(output, output.loss, float(norm), rows.ids, step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_scale()
        if self.state.memory is not None:
            self.state.memory.update(self.state.weights, output.memory)
        return output, norm

    def validate(self, display: ProgressDisplay) -> bool:
        """Validate when it is due; return whether these weights are the best so far, to be saved at once.

        Raises: DivergedError for the step before, which is read first.
        """
        if self.policy.is_due(self.state.step, self.total):
            self.read_step(display)
        heartbeat.update("validating")
        due = self.policy.is_due(self.state.step, self.total)
        with self.state.measured_weights() if due else nullcontext():
            metrics = self.policy.validate(self.state.step, self.total, self.model)
        if metrics is not None:
            record = {"step": self.state.step, "validation": metrics}
            self.metrics.write(record)
            _warn(self.alarms.update(record))
        return self.policy.improved


def initial_memory(setup: TrainingSetup) -> Memory:
    """Return what the objectives remember before the first step."""
    weights = {name: w for name, w in setup.model.weights().items() if setup.factors.get(name, 0) > 0}
    device = next(setup.model.parameters()).device
    return Memory.initial(setup.objectives, setup.sizes, setup.settings.seed, weights, device)


def _shard(setup: TrainingSetup, accelerator: Accelerator) -> DualEncoder:
    """Return the model with one shard of the weights on each process, where train.fsdp asks for it."""
    if not setup.settings.fsdp:
        return setup.model
    return fsdp.shard(setup.model, accelerator.device, bf16=accelerator.mixed_precision == "bf16")


def _guard(
    model: DualEncoder, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> UpdateGuard | None:
    """Return the guard of the updates; None where each step has to be read before its update."""
    supported = UpdateGuard.is_supported(optimizer) and not fsdp.is_sharded(model)
    return UpdateGuard(optimizer) if supported and accelerator.scaler is None else None


def is_due(step: int, every: int, total: int) -> bool:
    """Return whether an action of every so many steps, and of the last one, is due after `step`."""
    return step % every == 0 or step == total


def _alarms(setup: TrainingSetup, batch_size: int, earlier_records: list[dict[str, Any]]) -> AlarmMonitor:
    """Return the alarm monitor in the state that the records of earlier sessions have led to."""
    settings, max_scale = setup.settings, exp(setup.model.max_log_scale)
    monitor = AlarmMonitor(
        batch_size,
        max_scale,
        frozenset(setup.objectives),
        settings.max_retention_drop,
        settings.on_retention_drop,
    )
    for record in earlier_records:
        monitor.update(record)
    return monitor


def _warn(alarms: list[Alarm]) -> None:
    for alarm in alarms:
        log.warning("alarm: %s", alarm.text)
