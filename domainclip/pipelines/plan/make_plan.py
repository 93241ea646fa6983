"""What a run would do, before it does it: weights, steps, memory, texts, and, if asked, speed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from accelerate import Accelerator

from domainclip.config.recipe import Recipe
from domainclip.data.batching.batch import collate
from domainclip.data.batching.order import batch_positions
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.plan import cluster as plan_cluster
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import micro_batch_size, step, teachers
from domainclip.training import optimizer as training_optimizer
from domainclip.training.setup import TrainingSetup, precision, to_step_batch
from domainclip.training.views import StepBatch

BENCHMARK_PAIRS = 8  # pairs of a step
BENCHMARK_STEPS = 3


@dataclass(frozen=True)
class Plan:
    """The lines of a plan, in order."""

    lines: list[tuple[str, str]]
    warnings: tuple[str, ...]

    def text(self) -> str:
        """A table of two columns, then the warnings."""
        wide = max(len(name) for name, _ in self.lines)
        rows = [f"{name:{wide}}  {value}" for name, value in self.lines]
        return "\n".join([*rows, *(f"warning: {warning}" for warning in self.warnings)])


@dataclass(frozen=True)
class Cluster:
    """The devices that a plan is for."""

    devices: int
    network: plan_cluster.Network


def plan(recipe: Recipe, benchmark: bool, cluster: Cluster | None = None) -> Plan:
    """Reads base and corpus, applies the strategy, and says what would happen; trains nothing that stays.

    With a `cluster`, also what it would cost there, from what this device is measured to do.

    Raises: whatever the run itself would raise before its first step.
    """
    accelerator = Accelerator(mixed_precision=precision(recipe.train))
    inputs = load_inputs(recipe, "train")
    inputs.model.to(accelerator.device)
    sets = evaluation_sets(recipe, inputs.corpus, inputs.retention)
    setup = make_setup(inputs)
    steps, pairs = setup.total_steps, len(setup.pairs)
    counts = {name: len(rows) for name, rows in inputs.corpus.splits.items()}
    batch = min(recipe.train.batch_size, pairs)
    lines = [
        ("base", f"{recipe.base.path} ({inputs.model.family}, {inputs.model.max_tokens} tokens)"),
        ("corpus", ", ".join(f"{count} {name}" for name, count in counts.items())),
        (
            "measured on",
            ", ".join(f"{one.name} ({len(one.items)} items, {len(one.classes)} classes)" for one in sets),
        ),
        ("learns", setup.summary),
        (
            "objectives",
            ", ".join(f"{weight:g} × {name}" for name, weight in setup.objectives.weights.items()),
        ),
        (
            "schedule",
            f"{steps} steps of {batch} pairs, {recipe.train.epochs:g} epochs, peak rate {setup.peak_rate:g}",
        ),
        ("memory", _memory(setup)),
    ]
    notes = [finding for finding in inputs.findings if finding.level == "info"]
    lines += [("texts" if "caption" in finding.code else "checked", finding.text) for finding in notes]
    if benchmark or cluster is not None:  # real steps
        setup = teachers.precompute_teachers(setup)
    if benchmark:
        rate = _pairs_per_second(setup, accelerator)
        minutes = steps * batch / rate / 60
        lines.append(("speed", f"about {rate:.1f} pairs/s here: {minutes:.0f} minutes of training"))
    if cluster is not None:
        lines += _on_many(setup, accelerator, cluster, steps, batch)
    return Plan(lines, inputs.warnings)


def _on_many(
    setup: TrainingSetup, accelerator: Accelerator, cluster: Cluster, steps: int, batch: int
) -> list[tuple[str, str]]:
    settings = setup.settings
    profile = plan_cluster.measure(setup, accelerator, partial(_benchmark_batch, setup, 0))
    held = settings.micro_batch_size
    if held == "auto":
        held = micro_batch_size.find_micro_batch_size(
            setup.model, _benchmark_batch(setup, 0), setup.objectives, accelerator
        )
    shared = settings.fsdp
    found = plan_cluster.estimate(
        profile, cluster.network, devices=cluster.devices, batch=batch, held=held, shard=shared
    )
    days = steps * found.seconds / 86400
    lasting = f"{days:.1f} days" if days >= 1 else f"{days * 24 * 60:.0f} minutes"
    kind = f"{cluster.devices} devices like this one"
    return [
        (kind, f"about {found.pairs_per_second:,.0f} pairs/s, {lasting} of training"),
        (
            "a step there",
            f"{found.seconds:.3g} s: computes {found.computing:.3g} s, then sends "
            f"{found.sent / 2**20:,.1f} MiB in {found.sending:.3g} s "
            f"at {cluster.network.bandwidth / 1e9:g} GB/s",
        ),
        (
            "memory of each",
            f"about {found.memory / 2**30:.2f} GiB" + (", weights shared out" if shared else ""),
        ),
    ]


def _memory(setup: TrainingSetup) -> str:
    """Weights, gradients and AdamW's two moments, and what a micro-batch keeps for its backward pass."""
    weights = setup.model.weights()
    learning = sum(w.numel() for name, w in weights.items() if setup.factors[name] > 0)
    fixed = 4 * sum(w.numel() for w in weights.values()) + 12 * learning
    batch = _benchmark_batch(setup, 0)
    a_pair = (
        micro_batch_size.activation_bytes(setup.model, replace(batch, texts=batch.texts[:BENCHMARK_PAIRS]))
        / BENCHMARK_PAIRS
    )
    wanted = setup.settings.micro_batch_size
    if wanted == "auto":
        return f"about {fixed / 2**30:.2f} GiB, and {a_pair / 2**20:.1f} MiB for each pair held at once"
    held = min(wanted or setup.settings.batch_size, len(setup.pairs))
    total, part = (fixed + held * a_pair) / 2**30, held * a_pair / 2**30
    return f"about {total:.2f} GiB, of it {part:.2f} for {held} pairs held at once"


def _benchmark_batch(setup: TrainingSetup, at: int, pairs: int = BENCHMARK_PAIRS) -> StepBatch:
    order = batch_positions(at, pairs, len(setup.pairs), setup.settings.seed)
    batch = collate([setup.pairs[place] for place in order])
    return to_step_batch(setup.stage_inputs(), batch, at, next(setup.model.parameters()).device)


def _pairs_per_second(setup: TrainingSetup, accelerator: Accelerator) -> float:
    """Real steps, decoding included; the first one warms up and is not counted."""
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    taken: list[float] = []
    for at in range(BENCHMARK_STEPS + 1):
        began = time.perf_counter()
        step.compute_gradients(
            setup.model, setup.model, _benchmark_batch(setup, at), setup.objectives, None, at, accelerator
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - began)
    return BENCHMARK_PAIRS * BENCHMARK_STEPS / sum(taken[1:])
