"""A run in stages, each with weights of its own that learn; most runs have one.

What learns on keeps its moments, what begins to learn starts without, and what is kept of locked towers is
dropped and kept anew. The checkpoint at the end of a stage is what the next one begins from: so a run that
was resumed there, or anywhere, goes the same way as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from domainclip.training.checkpointing import checkpoint
from domainclip.training.loop import Trained, train_stage
from domainclip.training.setup import StepRange, TrainingSetup, total_steps


@dataclass(frozen=True)
class StageSteps:
    """The steps of one stage, and the factor on the learning rate by weight name."""

    steps: StepRange
    factors: dict[str, float]


def stages_of(setup: TrainingSetup) -> list[StageSteps]:
    """The stages of a run in their order, each with at least one step."""
    total = total_steps(setup.recipe, len(setup.pairs))
    stages, at, share = [], 0, 0.0
    # Heads of an objective learn in every stage.
    heads = {name: factor for name, factor in setup.factors.items() if name.startswith("extra/third.")}
    for stage in setup.stages:
        share += stage.share
        if (end := round(share * total)) > at:
            stages.append(StageSteps(StepRange(at, end), stage.learning_rates | heads))
        at = max(at, end)
    return stages


def train_in_stages(
    setup: TrainingSetup,
    keep: Callable[[TrainingSetup], TrainingSetup],
    folder: Path,
    saved: Path | None,
    accelerator: Accelerator,
    *,
    say: Callable[[str], None],
    quiet: bool = False,
) -> Trained:
    """Trains every stage that is not behind `saved`; `keep` computes once what is locked in one of them.

    Raises: what `train` raises.
    """
    parts = stages_of(setup)
    at = 0 if saved is None else int(checkpoint.load(saved)[1]["step"])
    done: list[Trained] = []
    for number, stage in enumerate(parts, start=1):
        if at >= stage.steps.end and number < len(parts):
            continue
        if len(parts) > 1:
            learning = sum(w.numel() for n, w in setup.model.weights().items() if stage.factors[n] > 0)
            steps = f"steps {stage.steps.begin + 1} to {stage.steps.end}"
            say(f"stage {number} of {len(parts)}, {steps}: {learning:,} weights learn")
        for name, weight in setup.model.weights().items():
            weight.requires_grad_(stage.factors[name] > 0)
        ready = keep(
            replace(setup, factors=stage.factors, steps=stage.steps, checkpointed=frozenset(_learning(setup)))
        )
        done.append(train_stage(ready, folder, saved, accelerator, quiet))
        if done[-1].steps < stage.steps.end:  # what was seen on held-out data has ended the run
            break
        accelerator.free_memory()  # what wraps the towers waits for gradients of this stage's weights
        at, saved = stage.steps.end, folder / "checkpoints" / f"step-{stage.steps.end:06d}"
    bad = {item.location: item for one in done for item in one.unusable}
    alarms = dict.fromkeys(alarm for one in done for alarm in one.alarms)
    return replace(done[-1], unusable=list(bad.values()), alarms=tuple(alarms))


def _learning(setup: TrainingSetup) -> list[str]:
    return [name for name, factor in setup.factors.items() if factor > 0]
