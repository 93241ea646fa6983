"""What the machine decides: how many pairs it holds at once, and how it runs the layers.

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
from domainclip.training import step
from domainclip.training.timing import seconds_per_call
from domainclip.training.views import StepBatch

_FEWEST = 8  # pairs of the first measurement; each next one has twice as many
_GAIN = 1.05  # a larger micro-batch must be that much faster to be worth its memory
_SHARE = 0.5  # of the free memory: what autograd keeps is not all that a step needs
_MOMENTS = 12  # bytes for a weight that learns: its gradient and two moments, not yet there when measured


def find_micro_batch_size(
    model: DualEncoder, batch: StepBatch, terms: components.WeightedObjectives, accelerator: Accelerator
) -> int | None:
    """The `micro_batch_size` for batches like this one; None, the fastest, when all b pairs fit.

    Beyond that everything is encoded twice, so the smallest micro-batch that is about as fast as the next
    larger one wins. All processes agree. Weights stay as they are.
    """
    device, pairs = batch.group.device, len(batch.group)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    part = batch.first(min(_FEWEST, pairs))
    room = _SHARE * available_memory(device) - _MOMENTS * learning
    most = int(room // (activation_bytes(model, part) / len(part.group)))
    most = max(1, -collectives.max_over_processes(-most))  # the least of all processes
    if most >= pairs:
        return None
    best, rate = most, 0.0
    size = min(_FEWEST, most)
    while size <= most:
        found = size / _seconds(model, batch.first(size), terms, accelerator)
        if found < _GAIN * rate:
            break
        best, rate, size = size, found, 2 * size
    return best


def activation_bytes(model: DualEncoder, batch: StepBatch) -> int:
    """Bytes that autograd keeps when the pairs of a batch are encoded: each tensor once, weights not."""
    seen: dict[int, int] = {}
    own = {weight.data_ptr() for weight in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    (given,) = step.split_batch(model, batch, None).inputs
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alive = model(**given)  # held, so that no address is used twice
    del alive
    return max(1, sum(seen.values()))


def available_memory(device: torch.device) -> int:
    """Bytes of memory that this process may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available / collectives.process_count())


def _seconds(
    model: DualEncoder, batch: StepBatch, terms: components.WeightedObjectives, accelerator: Accelerator
) -> float:
    """The time of a pass on the slowest process."""

    def compute() -> None:
        step.compute_gradients(model, model, batch, terms, None, 0, accelerator)
        model.zero_grad(set_to_none=True)

    seconds = seconds_per_call(compute, batch.group.device, calls=1)
    return max(1, collectives.max_over_processes(round(1e9 * seconds))) / 1e9
