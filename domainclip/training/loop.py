"""The training loop: one stage of a run, step by step. `TrainingState` is all that it remembers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domainclip import errors
from domainclip.config.training import TrainConfig
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives
from domainclip.errors import Interrupted
from domainclip.training import fsdp, layer_execution, loop_checkpoints
from domainclip.training.checkpointing import checkpoint, interruption
from domainclip.training.monitoring.alarms import Alarm
from domainclip.training.monitoring.progress import ProgressDisplay
from domainclip.training.run_context import RunContext
from domainclip.training.setup import StageInputs, TrainingSetup
from domainclip.training.stage_run import StageRun
from domainclip.training.state import TrainingState


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage."""

    steps: int
    unusable: list[UnusableItem]  # unreadable images, each replaced by the next readable one
    micro_batch_size: int | None = None  # pairs held at once, as set or as measured
    alarms: tuple[Alarm, ...] = ()
    weights_of_step: int = 0  # the step whose weights the model has now


def train_stage(inputs: StageInputs, saved: Path | None, run: RunContext) -> StageResult:
    """Train to the last step of a stage; continue from the checkpoint `saved`.

    Raises: DivergedError before a step whose loss or gradient is not finite; Interrupted after a signal, with
    a checkpoint written; ModelError when a checkpoint cannot be written.
    """
    stage = StageRun.begin(inputs, saved, run)
    setup, settings, total = inputs.setup, stage.settings, stage.total
    state, policy = stage.state, stage.policy
    weights, saves = setup.objectives.weights, loop_checkpoints.SaveSchedule(settings.save_every)
    with (
        interruption.InterruptHandler(settings.time_limit, run.started) as interrupts,
        checkpoint.AsyncCheckpointWriter(run.options.after_save) as writer,
        ProgressDisplay(total, state.step, stage.batch_size, run.quiet, weights) as display,
        layer_execution.layer_execution(stage.model, settings),
    ):
        while state.step < policy.last_step(stage.steps.end):
            stage.train_step(display)
            stop = collectives.max_over_processes(interrupts.requested())
            improved = stage.validate(display)
            if saves.is_due(state.step, policy.last_step(stage.steps.end)) or stop or improved:
                stage.read_step(display)
                loop_checkpoints.save(writer, setup, state, policy, run.folder)
            if stop and state.step < policy.last_step(total):
                collectives.on_first_process(writer.wait)
                place = run.options.address or str(run.folder)
                raise _interrupted(stop, state.step, total, settings, place)
        collectives.on_first_process(writer.wait)
    weights_of_step = loop_checkpoints.restore_best(state, policy, total, run.folder)
    fsdp.gather_back(stage.model)
    _add_to_model(setup, state)
    return StageResult(
        steps=state.step,
        unusable=list(stage.unusable.values()),
        micro_batch_size=None if state.micro_batch_size == "auto" else state.micro_batch_size,
        alarms=tuple(stage.alarms.raised),
        weights_of_step=weights_of_step,
    )


def _add_to_model(setup: TrainingSetup, state: TrainingState) -> None:
    """Give the model what objectives leave in it."""
    memory = {} if state.memory is None else state.memory.objectives
    for name, objective in setup.objectives.by_name.items():
        own = setup.model.weights_of_objective(name)
        objective.add_to_model(setup.model, own, memory.get(name, {}))


def _interrupted(signal: int, step: int, total: int, settings: TrainConfig, folder: str) -> Interrupted:
    queued = collectives.on_first_process(interruption.requeue) if settings.requeue else None
    message = f"stopped at step {step} of {total}; continue with --resume --run-dir {folder}"
    return errors.interrupted(signal, message if queued is None else f"{message}; {queued}")
