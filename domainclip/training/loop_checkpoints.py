"""The checkpoints of the training loop: resume from one, save one, and end with the weights of the best."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

from domainclip.config import durations
from domainclip.distributed import collectives, heartbeat
from domainclip.training import fsdp
from domainclip.training.checkpointing import checkpoint, sharded_files
from domainclip.training.setup import TrainingSetup
from domainclip.training.state import AVERAGE, TrainingState
from domainclip.training.validation_policy import ValidationPolicy

log = logging.getLogger("domainclip")


class SaveSchedule:
    """When checkpoints are due: after so many steps, or so much time, which the first process measures."""

    def __init__(self, every: int | str) -> None:
        self.every = every
        self._saved = time.monotonic()

    def is_due(self, step: int, last: int) -> bool:
        """Return whether one is due after `step`; always after the last. All processes call it."""
        if step == last:
            return True
        if isinstance(self.every, int):
            return step % self.every == 0
        wait = durations.seconds(self.every)
        due = collectives.on_first_process(lambda: time.monotonic() - self._saved >= wait)
        if due:
            self._saved = time.monotonic()
        return due


def restore(state: TrainingState, path: Path | None, first_step: int) -> dict[str, Any]:
    """Restore the state from a checkpoint and return its JSON facts; without one, return no facts.

    `first_step` is the step at which the stage begins.
    """
    if path is None:
        return {}
    facts = checkpoint.load_state(path)
    if sharded_files.has_shards(path):
        state.restore_shards(path, facts["step"])
    else:
        state.restore(checkpoint.load(path)[0], facts["step"])
    # A measured micro-batch size holds for the rest of its stage, since dropout is drawn by micro-batch.
    if state.step > first_step and "micro_batch_size" in facts:
        state.micro_batch_size = facts["micro_batch_size"]
    if state.scaler is not None and facts.get("loss_scale"):
        state.scaler.load_state_dict(facts["loss_scale"])
    return dict(facts)


def save(
    writer: checkpoint.AsyncCheckpointWriter,
    setup: TrainingSetup,
    state: TrainingState,
    policy: ValidationPolicy,
    folder: Path,
) -> None:
    """Save the state and the decisions of the validation policy; all processes call it.

    Raises: ModelError when the previous checkpoint could not be written.
    """
    heartbeat.update("saving")
    facts = {
        "step": state.step,
        "identity": dict(setup.identity),
        "micro_batch_size": state.micro_batch_size,
        "course": policy.state(),
        "loss_scale": None if state.scaler is None else state.scaler.state_dict(),
    }
    place, keep, protected = folder / "checkpoints", setup.settings.keep_checkpoints, policy.protected_steps
    if setup.settings.sharded_checkpoints and collectives.process_count() > 1:
        staging = collectives.on_first_process(lambda: checkpoint.begin(place, state.step))
        sharded_files.write(staging, state.groups(whole=False))
        collectives.on_first_process(lambda: writer.commit(staging, state.step, facts, keep, protected))
        return
    copied: set[str] = set()
    if fsdp.any_sharded(state.weights):
        collectives.on_first_process(writer.wait)  # the checkpoint before would lie in memory beside this one
        copied = {"weights", "optimizer"}
    groups = state.groups()
    collectives.on_first_process(
        lambda: writer.save(place, state.step, groups, facts, keep, protected, copied)
    )


def restore_best(state: TrainingState, policy: ValidationPolicy, total: int, folder: Path) -> int:
    """Restore the weights that the run ends with, and return the step that they are from."""
    best = policy.final_step(total)
    if state.step < policy.last_step(total):  # another stage follows
        return state.step
    if state.average is not None:
        state.average.apply()
    if best == state.step:
        return state.step
    path = folder / "checkpoints" / f"step-{best:06d}"
    if problem := collectives.on_first_process(partial(checkpoint.verify_checkpoint, path)):
        log.warning("%s is not complete: %s; the run ends with the weights of its last step", path, problem)
        return state.step
    group = "weights" if state.average is None else AVERAGE
    if sharded_files.has_shards(path):
        sharded_files.read_into(path, {group: state.weights})
    else:
        state.restore({"weights": checkpoint.load_group(path, group)}, state.step)
    return best
