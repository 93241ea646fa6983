"""The memory of a run at its peak: weights, moments, and what a training step allocates besides.

Legend: b pairs of a batch on this process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from accelerate import Accelerator

from domainclip.components import WeightedObjectives, build_objectives
from domainclip.models import onednn
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training import layer_execution, micro_batch_size, step, step_memory
from domainclip.training.memory import Memory
from domainclip.training.setup import TrainingSetup
from domainclip.training.stage_run import initial_memory
from domainclip.training.step_memory import StepMemory
from domainclip.training.views import StepBatch

_MEASURED = (4, 8)  # pairs held at once in the two steps that are measured on a CPU
_COSTLY = {"base_image", "anchor_image"}  # needs of objectives for which the whole corpus is encoded first
MakeBatch = Callable[[int], StepBatch]  # of so many pairs


@dataclass(frozen=True)
class RunMemory:
    """Bytes at the peak of a run on one device."""

    constant: int  # weights, moments and what objectives remember
    step: float  # what a step allocates besides
    held: int  # pairs at once

    @property
    def text(self) -> str:
        """`about 1.34 GiB at its peak: 0.61 for weights and moments, 0.73 for a step, 128 pairs at once`."""
        constant, step = self.constant / 2**30, self.step / 2**30
        return (
            f"about {constant + step:.2f} GiB at its peak: {constant:.2f} for weights and moments, "
            f"{step:.2f} for a step, {self.held} pairs at once"
        )


def estimate_memory(setup: TrainingSetup, accelerator: Accelerator, make_batch: MakeBatch) -> RunMemory:
    """Return the memory of a run; on a GPU it is measured at the number of pairs that the run would hold.

    Weights stay as they are. Objectives that need other models are left out.
    """
    pairs, device = min(setup.settings.batch_size, len(setup.pairs)), accelerator.device
    terms, memory = _measurable(setup), initial_memory(setup)
    constant = _constant_bytes(setup, memory)

    def take_step(batch: StepBatch, held: int | None = None) -> None:
        step.compute_gradients(setup.model, setup.model, batch, terms, held, 0, accelerator, memory)
        setup.model.zero_grad(set_to_none=True)

    learning = {name.split("/")[0] for name, factor in setup.factors.items() if factor > 0}
    setup.model.set_train_mode(learning)
    with layer_execution.layer_execution(setup.model, setup.settings):
        if device.type == "cuda":
            batch = make_batch(pairs)
            held = setup.settings.micro_batch_size
            if held == "auto":
                held = micro_batch_size.find_micro_batch_size(setup.model, batch, terms, accelerator, memory)
            take_step(batch, held)  # allocates what a process allocates once
            peak = step_memory.peak_bytes(lambda: take_step(batch, held), device)
            return RunMemory(constant, peak, min(held or pairs, pairs))
        with onednn.disabled():  # whose products begin at some size: the two steps would differ
            return _from_small_steps(setup, pairs, constant, make_batch, take_step)


def _from_small_steps(
    setup: TrainingSetup,
    pairs: int,
    constant: int,
    make_batch: MakeBatch,
    take_step: Callable[[StepBatch, int | None], None],
) -> RunMemory:
    captions = TokenCache(setup.model.text_tokenizer)

    def batches(times: int) -> list[StepBatch]:
        return [replace(make_batch(min(times * count, pairs)), captions=captions) for count in _MEASURED]

    plain = batches(1)
    one = step_memory.measure_two_steps(lambda batch: take_step(batch, None), plain)
    held = _pairs_at_once(setup, pairs, constant, one)
    pixels = pairs * _pixel_bytes(plain[0])
    if held >= pairs:
        return RunMemory(constant, one.peak(pairs) + pixels, pairs)
    # Two micro-batches: the gradients of the first one are there while the second one is encoded.
    two = step_memory.measure_two_steps(
        lambda batch: take_step(batch, max(1, len(batch.keys) // 2)), batches(2)
    )
    embeddings = 4 * 4 * pairs * setup.model.width  # both sides of the whole batch, and their gradients
    return RunMemory(constant, two.peak(2 * held) + embeddings + pixels, held)


def _pairs_at_once(setup: TrainingSetup, pairs: int, constant: int, measured: StepMemory) -> int:
    """Return the pairs that a run would hold at once: as set, or as many as its own rule has room for."""
    if setup.settings.micro_batch_size != "auto":
        return min(setup.settings.micro_batch_size or pairs, pairs)
    device = next(setup.model.parameters()).device
    free = micro_batch_size.MEMORY_SHARE * micro_batch_size.available_memory(device) - constant
    return int(max(1, min(pairs, free // max(1.0, measured.each_pair))))


def _constant_bytes(setup: TrainingSetup, memory: Memory) -> int:
    """Return the bytes of fp32 weights, of AdamW's two moments, and of the memory of the objectives."""
    weights = setup.model.weights()
    learning = sum(weight.numel() for name, weight in weights.items() if setup.factors[name] > 0)
    remembered = [tensor for group in memory.groups().values() for tensor in group.values()]
    everything = [*weights.values(), *remembered]
    return sum(tensor.nbytes for tensor in everything) + 8 * learning


def _pixel_bytes(batch: StepBatch) -> float:
    """Return the bytes of the images of a pair in main memory."""
    images = batch.image or {}
    return sum(array.nbytes for array in images.values()) / max(1, len(batch.keys))


def _measurable(setup: TrainingSetup) -> WeightedObjectives:
    """Return the objectives that need no other model; without one, that of the base's family."""
    kept = {
        name: (weight, objective)
        for name, (weight, objective) in setup.objectives.items()
        if not (
            objective.needs & _COSTLY or objective.inputs.teachers or objective.inputs.third_tower is not None
        )
    }
    return WeightedObjectives(kept) if kept else build_objectives({setup.model.objective: {}})
