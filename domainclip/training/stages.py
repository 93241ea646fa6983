"""Hop 6: train in stages, in each of which other weights learn; most runs have one.

Weights that go on learning keep their moments, weights that begin to learn start without, and outputs of
frozen layers are cached anew for each stage. A stage begins from the checkpoint at the end of the one before:
a run that was resumed there, or anywhere, ends with the same weights as one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from domainclip.data.quarantine import UnusableItem
from domainclip.distributed.shared_tensors import SharedTensors
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.parameters import OBJECTIVE_WEIGHTS
from domainclip.training.checkpointing import checkpoint
from domainclip.training.loop import StageResult, train_stage
from domainclip.training.monitoring.alarms import Alarm
from domainclip.training.precompute import precompute
from domainclip.training.run_context import RunContext
from domainclip.training.setup import StepRange, TrainingSetup


@dataclass(frozen=True)
class StageSteps:
    """The steps of one stage, and the factor on the learning rate by weight name."""

    steps: StepRange
    factors: dict[str, float]


@dataclass(frozen=True)
class TrainedModel:
    """A model after its last step."""

    setup: TrainingSetup
    # Those that learned, before the first step, in main memory; only where something needs them. Of several
    # processes each holds a share.
    start_weights: Mapping[str, Tensor]
    steps: int
    weights_of_step: int  # the step whose weights the model has: the last, or the best
    micro_batch_size: int | None  # as set or measured; None: the whole batch
    alarms: tuple[Alarm, ...]
    unusable: tuple[UnusableItem, ...]  # images that could not be read, each replaced by the next one

    @property
    def model(self) -> DualEncoder:
        """The model, trained in place."""
        return self.setup.model


def stages_of(setup: TrainingSetup) -> list[StageSteps]:
    """The stages of a run in their order, each with at least one step."""
    total = setup.total_steps
    stages, at, share = [], 0, 0.0
    # The own weights of objectives learn in every stage.
    own = {name: factor for name, factor in setup.factors.items() if name.startswith(OBJECTIVE_WEIGHTS)}
    for stage in setup.stages:
        share += stage.share
        if (end := round(share * total)) > at:
            stages.append(StageSteps(StepRange(at, end), stage.learning_rates | own))
        at = max(at, end)
    return stages


def train_in_stages(setup: TrainingSetup, run: RunContext) -> TrainedModel:
    """Train every stage that the checkpoint of the setup, if any, is not behind already.

    A strategy that trains no weight has no stage: the model stays as it is.

    Raises: DivergedError, Interrupted or ModelError, as `train_stage` does.
    """
    run.say(f"{setup.summary}; {len(setup.pairs)} training pairs; run folder {run.folder}")
    if not setup.stages:
        return TrainedModel(setup, {}, 0, 0, None, (), ())
    run.say(*filter(None, [setup.advice]))
    weights = setup.model.weights()
    needed = (name for name in weights if setup.needs_start_weights and setup.factors[name] > 0)
    start = SharedTensors({name: weights[name] for name in needed})
    stages, saved = stages_of(setup), setup.checkpoint
    step = 0 if saved is None else int(checkpoint.load_state(saved)["step"])
    results: list[StageResult] = []
    for number, stage in enumerate(stages, start=1):
        begin, end = stage.steps
        if step >= end and number < len(stages):
            continue
        if len(stages) > 1:
            learning = sum(w.numel() for name, w in weights.items() if stage.factors[name] > 0)
            run.say(
                f"stage {number} of {len(stages)}, steps {begin + 1} to {end}: {learning:,} weights learn"
            )
        for name, weight in weights.items():
            weight.requires_grad_(stage.factors[name] > 0)
        inputs = precompute(replace(setup.stage_inputs(stage.steps, stage.factors), start_weights=start), run)
        results.append(train_stage(inputs, saved, run))
        # Its wrapper of the model waits for gradients of this stage's weights, and holds the moments.
        run.accelerator.free_memory()
        if results[-1].steps < end:  # the validation has ended the run
            break
        step, saved = end, run.folder / "checkpoints" / f"step-{end:06d}"
    return _joined(setup, start, results)


def _joined(
    setup: TrainingSetup, start_weights: Mapping[str, Tensor], results: list[StageResult]
) -> TrainedModel:
    """The result of all stages: the end of the last one, alarms and unusable images of all."""
    last = results[-1]
    unusable = {item.location: item for result in results for item in result.unusable}
    alarms = dict.fromkeys(alarm for result in results for alarm in result.alarms)
    return TrainedModel(
        setup=setup,
        start_weights=start_weights,
        steps=last.steps,
        weights_of_step=last.weights_of_step,
        micro_batch_size=last.micro_batch_size,
        alarms=tuple(alarms),
        unusable=tuple(unusable.values()),
    )
