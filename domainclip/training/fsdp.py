"""Weights, gradients and moments dealt out to the processes: each holds one part of every tensor.

torch's FSDP2 does the work [arXiv:2304.11277]: it gathers the weights of one layer when that layer runs, and
gives each process its part of the gradient, the mean over the processes as in data-parallel training. The
towers that everybody else knows stay as they are, empty while others like them, around the same weights, are
trained; in the end they get the weights back.

Legend: w processes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import layer_stack
from domainclip.models.parameters import POOLING

# What stays whole on every process: single numbers, and what a strategy adds beside the model: it is small.
_WHOLE = ("scale/", "bias/", "extra/", f"image/{POOLING}")


def shard(model: DualEncoder, device: torch.device) -> DualEncoder:
    """Towers to train of which 1/w is here; the given ones are empty until `give_back`.

    One process gets the given ones.
    """
    if collectives.process_count() == 1:
        return model
    # Nothing here writes into what a tower returned, which is all that this would warn of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # Autocast would keep a rounded copy of every layer that has run until the last one has.
    torch.set_autocast_cache_enabled(False)
    shared = _like(model)
    mesh = init_device_mesh(device.type, (collectives.process_count(),))
    kept = {weight for name, weight in shared.weights().items() if name.startswith(_WHOLE)}
    sides = (shared.hf_base.vision_model, shared.hf_base.text_model)
    # Each with what is in it and in none before it: a layer, the rest of a tower, the projections.
    for module in (*(layer for side in sides for layer in layer_stack(side)[1]), *sides, shared):
        fully_shard(module, mesh=mesh, ignored_params=kept)
    _empty(model)
    shared.__dict__["given"] = model  # not as a module of its own
    return shared


def gather_back(shared: DualEncoder) -> None:
    """Fills the towers that were given to `share_out` with the weights of now; all processes call it."""
    if not is_sharded(shared):
        return
    now = shared.weights()
    for name, weight in _given(shared).weights().items():
        weight.data = full_tensor(now[name]).detach()


@contextmanager
def temporarily_gathered(model: DualEncoder) -> Iterator[DualEncoder]:
    """The towers, whole for a moment where they are shared, so that something can be measured."""
    if not is_sharded(model):
        yield model
        return
    gather_back(model)
    try:
        yield _given(model)
    finally:
        _empty(_given(model))


def is_sharded(model: nn.Module) -> bool:
    """Whether only a part is here, so that all processes must run the same layers at the same time."""
    return isinstance(model, FSDPModule)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all processes; all of them call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_tensors_on_rank0(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whole, in the main memory of the first process; the others get none. All of them call it.

    One is whole at a time, besides what the first process has put aside. Without parts they stay as they are.
    """
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor.detach())
        if collectives.rank() == 0:
            found[name] = full.cpu()
    return found


def local_shard(value: Tensor, weight: Tensor) -> Tensor:
    """Of a whole tensor, what belongs to this process's part of a weight of the same shape."""
    value = value.to(weight.device)
    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def bytes_here(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors that lie on this process."""
    parts = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(one.numel() * one.element_size() for one in parts)


def prepare(
    model: DualEncoder, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[Any, Any]:
    """Model and optimizer as the loop uses them; shared towers need no data-parallel wrapper."""
    if is_sharded(model):
        return model, accelerator.prepare(optimizer)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    return wrapped, prepared


def clip_gradients(model: DualEncoder, most: float, accelerator: Accelerator) -> float:
    """The norm of all gradients after a step's last backward pass; they are scaled down to `most`."""
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    if not is_sharded(model):
        return float(accelerator.clip_grad_norm_(weights, most))
    # Parts and whole tensors cannot stand in one list.
    kinds = [[one for one in weights if isinstance(one, DTensor) == parts] for parts in (True, False)]
    for weight in kinds[1]:  # nobody else exchanges what stays whole
        weight.grad = None if weight.grad is None else collectives.mean(weight.grad)
    norms = [get_total_norm([one.grad for one in kind if one.grad is not None]) for kind in kinds if kind]
    norm = torch.stack([full_tensor(one) for one in norms]).norm()
    for kind in kinds:
        clip_grads_with_norm_(kind, most, norm)
    return float(norm)


def _like(model: DualEncoder) -> DualEncoder:
    """Other modules around the same weights, tokenizer and processor."""
    same: list[Any] = [*model.parameters(), model.text_tokenizer.hf_tokenizer, model.hf_image_processor]
    return copy.deepcopy(model, {id(one): one for one in same})


def _given(shared: DualEncoder) -> DualEncoder:
    model: DualEncoder = shared.__dict__["given"]
    return model


def _empty(model: DualEncoder) -> None:
    for name, weight in model.weights().items():
        if not name.startswith(_WHOLE):
            weight.data = weight.data.new_empty(0)
