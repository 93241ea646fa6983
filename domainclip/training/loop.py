"""The loop: one straight page. Everything it remembers is listed in `State`, and exactly that is saved."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import errors
from domainclip.data.batching.loader import batches
from domainclip.data.batching.pairs import Batch
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives, heartbeat
from domainclip.errors import DivergedError, Interrupted
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training import fsdp, layer_execution
from domainclip.training import micro_batch_size as training_micro_batch_size
from domainclip.training import optimizer as training_optimizer
from domainclip.training import step as training_step
from domainclip.training.checkpointing import checkpoint, interruption
from domainclip.training.monitoring.alarms import Alarm, AlarmMonitor
from domainclip.training.monitoring.metrics_log import MetricsLog
from domainclip.training.monitoring.progress import ProgressDisplay
from domainclip.training.setup import StepRange, TrainingSetup, to_step_batch, total_steps
from domainclip.training.validation_policy import ValidationPolicy

log = logging.getLogger("domainclip")


@dataclass
class State:
    """All that the loop remembers between two steps; order and randomness are functions of `step`."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Tensors to save: the weights that learn, and the optimizer's moments under the same names.

        All processes call it; of shared weights, only the first one gets any.
        """
        moments = {}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                moments[f"{name}:{key}"] = torch.as_tensor(value)
        return {
            "weights": fsdp.full_tensors_on_rank0(self.weights),
            "optimizer": fsdp.full_tensors_on_rank0(moments),
        }

    def restore(self, groups: dict[str, dict[str, Tensor]], at: int) -> None:
        """The inverse of `groups`."""
        self.step = at
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(fsdp.local_part(groups["weights"][name], weight))
        learning = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        for full, value in groups.get("optimizer", {}).items():
            name, _, key = full.rpartition(":")
            weight = self.weights[name]
            if id(weight) not in learning:  # in the stage before this one it did
                continue
            place = value if key == "step" else fsdp.local_part(value, weight)
            self.optimizer.state[weight][key] = training_optimizer.moment(self.optimizer, key, place.clone())


@dataclass(frozen=True)
class Trained:
    """What the loop tells afterwards."""

    steps: int
    unusable: list[UnusableItem]  # pictures that could not be read, each replaced by the next one that could
    micro_batch_size: int | None = None  # pairs held at once, as it was set or measured
    alarms: tuple[Alarm, ...] = ()  # what looked wrong on the way
    weights_of_step: int = 0  # the step whose weights the towers have now


def train_stage(
    setup: TrainingSetup, folder: Path, saved: Path | None, accelerator: Accelerator, quiet: bool = False
) -> Trained:
    """Trains to the last step of the job's span; continues from the checkpoint `saved`.

    Raises: DivergedError before a step with a loss or gradient that is not finite; Interrupted after a
    signal, with a checkpoint written; ModelError when a checkpoint cannot be written.
    """
    settings, setup = setup.recipe.train, _shard(setup, accelerator.device)
    total = total_steps(setup.recipe, len(setup.pairs))
    begin, end = setup.steps or StepRange(0, total)
    batch_size = min(settings.batch_size, len(setup.pairs))
    learning = {name: w for name, w in setup.model.weights().items() if setup.factors[name] > 0}
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, settings, setup.peak_rate)
    state = State(0, learning | _learnt(setup), optimizer)
    facts = _resumed(state, saved, begin)
    held = facts.get("micro_batch_size", settings.micro_batch_size)
    course = ValidationPolicy(setup.validation, settings, facts.get("course"))
    setup.model.set_train_mode({name.split("/")[0] for name in learning})
    model, wrapped = fsdp.prepare(setup.model, optimizer, accelerator)
    metrics = MetricsLog(folder / "metrics.jsonl", state.step, setup.validation, settings.track is not None)
    watch = _watch(setup, batch_size, metrics.earlier_records)
    rows_of = batches(setup.pairs, state.step, end, batch_size, seed=settings.seed, workers=settings.workers)
    bad = {item.place: item for item in setup.unusable}
    with (
        interruption.InterruptHandler(settings.stop_after, setup.started) as asked,
        checkpoint.AsyncCheckpointWriter() as saver,
        ProgressDisplay(
            total, state.step, batch_size, quiet or collectives.rank() > 0, _parts(setup)
        ) as display,
        layer_execution.layer_execution(setup.model, settings),
    ):
        while state.step < course.last_step(end):
            began = time.monotonic()
            heartbeat.update("reading data", state.step + 1)
            rows = next(rows_of)
            waited = time.monotonic() - began
            heartbeat.update("computing")
            bad.update((item.place, item) for item in rows.bad)
            batch = to_step_batch(setup, rows, state.step, accelerator.device)
            if held == "auto":
                held = training_micro_batch_size.find_micro_batch_size(
                    setup.model, batch, setup.terms, accelerator
                )
            share = course.rate_factor * training_optimizer.learning_rate_factor(
                state.step - begin, end - begin, settings.warmup
            )
            training_optimizer.set_rate(optimizer, share)
            seed = settings.seed * 1_000_003 + state.step
            taken = training_step.compute_gradients(
                model, setup.model, batch, setup.terms, held, seed, accelerator
            )
            norm = fsdp.clip_gradients(setup.model, settings.max_grad_norm, accelerator)
            _check_finite(taken, norm, rows, state.step)
            wrapped.step()
            wrapped.zero_grad(set_to_none=True)
            setup.model.clamp_scale()
            state.step += 1
            record = _figures(setup, state, batch_size, taken, norm) | {
                "pairs_per_second": display.rate(state.step),
                "waited": waited / max(1e-9, time.monotonic() - began),
            }
            _warn(watch.update(record))
            stop = collectives.max_over_processes(asked.requested())
            if is_due(state.step, settings.log_every, total):
                metrics.write(record)
            improved = _validate(course, setup.model, state.step, total, metrics, watch)
            if is_due(state.step, settings.save_every, course.last_step(end)) or stop or improved:
                _save(saver, setup, state, held, course, folder)
            display.show(state.step, record)
            if stop and state.step < course.last_step(total):
                collectives.on_first_process(saver.wait)
                raise _interrupted(setup, stop, state.step, total, folder)
        collectives.on_first_process(saver.wait)
    held, at = None if held == "auto" else held, _restore_best(course, state, total, folder)
    fsdp.gather_back(setup.model)
    return Trained(state.step, list(bad.values()), held, tuple(watch.raised), at)


def _shard(setup: TrainingSetup, device: torch.device) -> TrainingSetup:
    """The job with a part of the weights on each process, where the recipe says so."""
    if setup.recipe.train.shard == "none":
        return setup
    return replace(setup, model=fsdp.shard(setup.model, device))


def _parts(setup: TrainingSetup) -> dict[str, float]:
    return {name: weight for name, (weight, _) in setup.terms.items()}


def _resumed(state: State, saved: Path | None, begin: int) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, which are in place then; of none, nothing."""
    if saved is None:
        return {}
    groups, facts = checkpoint.load(saved)
    state.restore(groups, facts["step"])
    # What was measured once holds for the rest of its stage: dropout is drawn by micro-batch.
    return {key: value for key, value in facts.items() if state.step > begin or key != "micro_batch_size"}


def _learnt(setup: TrainingSetup) -> dict[str, Tensor]:
    """The weights that learn in any stage: what a checkpoint holds."""
    return {name: weight for name, weight in setup.model.weights().items() if name in setup.checkpointed}


def _watch(setup: TrainingSetup, batch_size: int, before: list[dict[str, Any]]) -> AlarmMonitor:
    """The alarms, which have seen what earlier sessions wrote."""
    settings, bound = setup.recipe.train, exp(setup.model.max_log_scale)
    floor, action = settings.retention_floor, settings.on_retention_floor
    watch = AlarmMonitor(batch_size, bound, frozenset(setup.terms), floor, action)
    for line in before:
        watch.update(line)
    return watch


def _warn(alarms: list[Alarm]) -> None:
    for alarm in alarms:
        log.warning("alarm: %s", alarm.text)


def _validate(
    course: ValidationPolicy,
    model: DualEncoder,
    at: int,
    total: int,
    metrics: MetricsLog,
    watch: AlarmMonitor,
) -> bool:
    """Looks at held-out data when it is time; whether these weights are the best, to be saved at once."""
    heartbeat.update("looking at held-out data")
    found = course.validate(at, total, model)
    if found is not None:
        line = {"step": at, "validation": found}
        metrics.write(line)
        _warn(watch.update(line))
    return course.improved


def _restore_best(course: ValidationPolicy, state: State, total: int, folder: Path) -> int:
    """Puts the weights that the run ends with into place; the step they are of."""
    best = course.final_step(total)
    if best == state.step or state.step < course.last_step(total):  # another stage follows
        return state.step
    place = folder / "checkpoints" / f"step-{best:06d}"
    if problem := collectives.on_first_process(partial(checkpoint.verify_checkpoint, place)):
        log.warning("%s is not complete: %s; the run ends with the weights of its last step", place, problem)
        return state.step
    groups, _ = checkpoint.load(place)
    state.restore({"weights": groups["weights"]}, state.step)
    return best


def _figures(
    setup: TrainingSetup, state: State, batch_size: int, taken: training_step.StepOutput, norm: float
) -> dict[str, Any]:
    """What a line of metrics.jsonl says of a step."""
    return {
        "step": state.step,
        "epoch": state.step * batch_size / len(setup.pairs),
        "loss": taken.loss,
        "terms": taken.terms,
        "scale": setup.model.scale.item(),
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "grad_norm": norm,
        "image_cosine": taken.image_cosine,
        "text_cosine": taken.text_cosine,
    }


def is_due(step: int, every: int, total: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens now."""
    return step % every == 0 or step == total


def _check_finite(taken: training_step.StepOutput, norm: float, rows: Batch, at: int) -> None:
    loss = torch.tensor([taken.loss, norm])
    if bool(loss.isfinite().all()):
        return
    # The loss is the same everywhere, so every process comes here; the broken row is with one of them.
    broken = [rows.ids[i] for i in taken.non_finite_rows]
    named = [item for share in collectives.gather_objects(broken) for item in share] or rows.ids
    more = f" and {len(named) - 8} more" if len(named) > 8 else ""
    raise DivergedError(
        f"step {at + 1}: loss {taken.loss}, gradient norm {norm}: stopped before the step, weights are "
        f"unchanged; items: {', '.join(named[:8])}{more}; lower train.learning_rate, then start again"
    )


def _save(
    saver: checkpoint.AsyncCheckpointWriter,
    setup: TrainingSetup,
    state: State,
    held: int | None,
    course: ValidationPolicy,
    folder: Path,
) -> None:
    heartbeat.update("saving")
    facts = {"step": state.step, "identity": setup.identity, "micro_batch_size": held}
    facts["course"] = course.state()
    place, keep = folder / "checkpoints", setup.recipe.train.keep
    groups = state.groups()
    collectives.on_first_process(
        lambda: saver.save(place, state.step, groups, facts, keep, course.protected_steps)
    )


def _interrupted(setup: TrainingSetup, asked: int, at: int, total: int, folder: Path) -> Interrupted:
    queued = collectives.on_first_process(interruption.requeue) if setup.recipe.train.requeue else None
    said = f"stopped at step {at} of {total}; continue with --resume --run-dir {folder}"
    return errors.interrupted(asked, said if queued is None else f"{said}; {queued}")
