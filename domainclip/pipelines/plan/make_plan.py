"""The command `plan`: what a run would do: weights, steps, memory, captions and, if asked, speed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial

from accelerate import Accelerator

from domainclip.config.recipe import Recipe
from domainclip.data.batching.batch import collate
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.plan import cluster as plan_cluster
from domainclip.pipelines.plan import memory
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import micro_batch_size, step, teachers
from domainclip.training import optimizer as training_optimizer
from domainclip.training.precision import mixed_precision
from domainclip.training.setup import TrainingSetup, to_step_batch
from domainclip.training.stage_run import initial_memory
from domainclip.training.timing import seconds_per_call
from domainclip.training.views import StepBatch

BENCHMARK_PAIRS = 8  # pairs of a step
BENCHMARK_STEPS = 3
# Of a strategy that trains no weight of the model.
_NO_TRAINING = ("schedule", "no training: images and texts are encoded, and the validation split chooses")


@dataclass(frozen=True)
class Plan:
    """The lines of a plan, in order."""

    lines: list[tuple[str, str]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """The devices that a plan is for."""

    devices: int
    network: plan_cluster.Network


def plan(recipe: Recipe, benchmark: bool, cluster: Cluster | None = None) -> Plan:
    """Load base and corpus, apply the strategy, and describe the run; no weights are written.

    With a `benchmark`, the throughput of a few steps is measured; with a `cluster`, the cost of a step there
    is estimated from measurements on this device.

    Raises: whatever the run itself would raise before its first step.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision(recipe.train))
    inputs = load_inputs(recipe, "train")
    inputs.model.to(accelerator.device)
    sets = evaluation_sets(recipe, inputs.corpus, inputs.retention)
    setup = make_setup(inputs)
    steps, pairs = setup.total_steps, len(setup.pairs)
    counts = {name: len(rows) for name, rows in inputs.corpus.splits.items()}
    batch = min(recipe.train.batch_size, pairs)
    if cluster is not None and setup.stages:
        plan_cluster.pairs_of_device(batch, cluster.devices)  # refused before anything is measured
    lines = [
        ("base", f"{recipe.base.path} ({inputs.model.family}, {inputs.model.max_tokens} tokens)"),
        ("corpus", ", ".join(f"{count} {name}" for name, count in counts.items())),
        (
            "measured on",
            ", ".join(f"{data.name} ({len(data.items)} items, {len(data.classes)} classes)" for data in sets),
        ),
        ("learns", setup.summary),
        *(_training_lines(setup, accelerator, batch) if setup.stages else [_NO_TRAINING]),
    ]
    if recipe.train.seeds is not None:
        seeds = recipe.train.all_seeds()
        lines.append(("runs", f"{len(seeds)} such runs, seeds {', '.join(map(str, seeds))}, and one report"))
    notes = [finding for finding in inputs.findings if finding.level == "info"]
    lines += [("texts" if "caption" in finding.code else "checked", finding.text) for finding in notes]
    lines += [("read", note) for note in inputs.corpus.notes]
    if not setup.stages:
        return Plan(lines, inputs.warnings)
    if benchmark or cluster is not None:  # real steps
        setup = teachers.precompute_teachers(setup)
    if benchmark:
        rate = _pairs_per_second(setup, accelerator)
        minutes = steps * batch / rate / 60
        lines.append(("speed", f"about {rate:.1f} pairs/s here: {minutes:.0f} minutes of training"))
    if cluster is not None:
        lines += _cluster_lines(setup, accelerator, cluster, steps, batch)
    return Plan(lines, inputs.warnings)


def _training_lines(setup: TrainingSetup, accelerator: Accelerator, batch: int) -> list[tuple[str, str]]:
    """Objectives, schedule and memory of the steps."""
    weighted = (f"{weight:g} × {name}" for name, weight in setup.objectives.weights.items())
    schedule = (
        f"{setup.total_steps} steps of {batch} pairs, {setup.epochs:g} epochs, peak rate {setup.peak_rate:g}"
    )
    estimate = memory.estimate_memory(setup, accelerator, partial(_benchmark_batch, setup, 0))
    return [("objectives", ", ".join(weighted)), ("schedule", schedule), ("memory", estimate.text)]


def _cluster_lines(
    setup: TrainingSetup, accelerator: Accelerator, cluster: Cluster, steps: int, batch: int
) -> list[tuple[str, str]]:
    settings, rows = setup.settings, plan_cluster.pairs_of_device(batch, cluster.devices)
    micro_batch = settings.micro_batch_size
    if micro_batch == "auto":  # decided as in training: from the batch of a device
        share = _benchmark_batch(setup, 0, rows)
        micro_batch = micro_batch_size.find_micro_batch_size(
            setup.model, share, setup.objectives, accelerator, initial_memory(setup)
        )
    profile = plan_cluster.measure(
        setup, accelerator, partial(_benchmark_batch, setup, 0), held=min(micro_batch or rows, rows)
    )
    step_cost = plan_cluster.estimate(
        profile,
        cluster.network,
        devices=cluster.devices,
        batch=batch,
        micro_batch=micro_batch,
        shard=settings.fsdp,
    )
    days = steps * step_cost.seconds / 86400
    duration = f"{days:.1f} days" if days >= 1 else f"{days * 24 * 60:.0f} minutes"
    devices = f"{cluster.devices} devices like this one"
    return [
        (devices, f"about {step_cost.pairs_per_second:,.0f} pairs/s, {duration} of training"),
        (
            "a step there",
            f"{step_cost.seconds:.3g} s: computes {step_cost.computing:.3g} s, then sends "
            f"{step_cost.sent / 2**20:,.1f} MiB in {step_cost.sending:.3g} s "
            f"at {cluster.network.bandwidth / 1e9:g} GB/s",
        ),
        (
            "memory of each",
            f"about {step_cost.memory / 2**30:.2f} GiB" + (", weights shared out" if settings.fsdp else ""),
        ),
    ]


def _benchmark_batch(setup: TrainingSetup, at: int, pairs: int = BENCHMARK_PAIRS) -> StepBatch:
    order = setup.pairs.positions(at, pairs)
    batch = collate([setup.pairs[place] for place in order])
    return to_step_batch(setup.stage_inputs(), batch, at, next(setup.model.parameters()).device)


def _pairs_per_second(setup: TrainingSetup, accelerator: Accelerator) -> float:
    """The throughput of real steps, decoding included."""
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    steps, remembered = itertools.count(), initial_memory(setup)

    def train_step() -> None:
        at = next(steps)
        batch = _benchmark_batch(setup, at)
        step.compute_gradients(
            setup.model, setup.model, batch, setup.objectives, None, at, accelerator, remembered
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return BENCHMARK_PAIRS / seconds_per_call(train_step, accelerator.device, BENCHMARK_STEPS)
