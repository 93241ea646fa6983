"""Choose the micro-batch size from measured activation memory and speed.

Legend: b pairs of this process.
"""

from __future__ import annotations

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training import fsdp, microbatches, step
from domainclip.training.memory import Memory
from domainclip.training.timing import seconds_per_call
from domainclip.training.views import StepBatch

_MIN_PAIRS = 8  # of the first measurement; each further one has twice as many
_MIN_SPEEDUP = 1.05  # that makes a larger micro-batch worth its memory
MEMORY_SHARE = 0.5  # of the free memory: a step needs more than the activations
_OPTIMIZER_BYTES = 12  # for each number that learns: gradient and moments, not allocated when measured


def find_micro_batch_size(
    model: DualEncoder,
    batch: StepBatch,
    terms: components.WeightedObjectives,
    accelerator: Accelerator,
    memory: Memory | None = None,
) -> int | None:
    """Return the `micro_batch_size` for batches like this one; None, the fastest, when all b pairs fit.

    With micro-batches everything is encoded twice, so the smallest one that is about as fast as the next
    larger one is chosen. All processes agree. The weights do not change.
    """
    device, pairs = batch.keys.group.device, len(batch.keys)
    learning = sum(fsdp.local_numbers(weight) for weight in model.parameters() if weight.requires_grad)
    probe = batch.first(min(_MIN_PAIRS, pairs))
    free = MEMORY_SHARE * available_memory(device) - _OPTIMIZER_BYTES * learning
    largest = int(free // (activation_bytes(model, probe, accelerator) / len(probe.keys)))
    largest = max(1, -collectives.max_over_processes(-largest))  # the smallest of all processes
    if largest >= pairs:
        return None
    best, best_rate = largest, 0.0
    size = min(_MIN_PAIRS, largest)
    while size <= largest:
        rate = size / _seconds(model, batch.first(size), terms, accelerator, memory)
        if rate < _MIN_SPEEDUP * best_rate:
            break
        best, best_rate, size = size, rate, 2 * size
    return best


def activation_bytes(model: DualEncoder, batch: StepBatch, accelerator: Accelerator) -> int:
    """Return the bytes that autograd keeps to encode a batch: each tensor once, without the weights.

    They are those of the run's precision, copies of weights in bf16 included. A sharded layer keeps its
    gathered weights only while it runs.
    """
    sizes: dict[int, int] = {}  # by address
    weights = {weight.data_ptr() for weight in model.parameters()}
    gathered: set[int] = set()  # storages, as the address of one that was freed is used again

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights and tensor.untyped_storage()._cdata not in gathered:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    (split,) = step.split_batch(model, batch, None).inputs
    inputs = microbatches.on_device(split, batch.keys.group.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor)
    with hooks, fsdp.gathered_storages(model, gathered), accelerator.autocast():
        outputs = model(**inputs)  # held, so that no address is used twice
    del outputs
    return max(1, sum(sizes.values()))


def available_memory(device: torch.device) -> int:
    """Return the bytes of memory that this process can still allocate."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available / collectives.process_count())


def _seconds(
    model: DualEncoder,
    batch: StepBatch,
    terms: components.WeightedObjectives,
    accelerator: Accelerator,
    memory: Memory | None = None,
) -> float:
    """Return the seconds of a step on the slowest process."""

    def compute() -> None:
        step.compute_gradients(model, model, batch, terms, None, 0, accelerator, memory)
        model.zero_grad(set_to_none=True)

    seconds = seconds_per_call(compute, batch.keys.group.device, calls=1)
    return max(1, collectives.max_over_processes(round(1e9 * seconds))) / 1e9
