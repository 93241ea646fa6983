"""Fully sharded training: each process holds one shard of every weight, gradient and moment.

torch's FSDP2 [arXiv:2304.11277] gathers the weights of a layer when that layer runs, and gives each
process its shard of the gradient, the mean over the processes as in data-parallel training. The model
that the rest of the program holds does not change: it is empty while a copy of its modules, around the same
weights, is trained, and gets the weights back in the end.

In bf16 the matrices of a layer are gathered in bf16, and their gradients are summed in fp32. Its biases and
norms stay whole, since autocast reads them in fp32. The rest of a tower and the projections are gathered in
fp32: what they write is the sum that every layer adds to, which autocast has in fp32.

Legend: w processes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import layer_stack
from domainclip.models.parameters import POOLING

# Stays whole on every process: single numbers, and the small modules that a strategy adds to the model.
_WHOLE = ("scale/", "bias/", "extra/", f"image/{POOLING}")

# Autocast casts the inputs where a layer wants it; cast by FSDP, all that a layer adds to would be bf16 too.
_BF16 = MixedPrecisionPolicy(
    param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
)


def shard(model: DualEncoder, device: torch.device, *, bf16: bool = False) -> DualEncoder:
    """Return a model of which 1/w is on this process; the given one is empty until `gather_back`.

    With one process, return the given model. `bf16`: the layers compute under an autocast to bf16.
    """
    if collectives.process_count() == 1:
        return model
    # The warning concerns writing into the output of a tower, which does not happen here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # Autocast would keep a rounded copy of each layer until the last layer has run.
    torch.set_autocast_cache_enabled(False)
    sharded = _copy_modules(model)
    mesh = init_device_mesh(device.type, (collectives.process_count(),))
    towers = (sharded.hf_base.vision_model, sharded.hf_base.text_model)
    layers = [layer for tower in towers for layer in layer_stack(tower)[1]]
    whole = {weight for name, weight in sharded.weights().items() if name.startswith(_WHOLE)}
    if bf16:
        whole |= {weight for layer in layers for weight in layer.parameters() if weight.ndim < 2}
    # A unit has the weights that are in no unit before it: a layer, the rest of a tower, the projections.
    for layer in layers:
        fully_shard(
            layer, mesh=mesh, ignored_params=whole, mp_policy=_BF16 if bf16 else MixedPrecisionPolicy()
        )
    for module in (*towers, sharded):
        fully_shard(module, mesh=mesh, ignored_params=whole)
    sharded.__dict__["unsharded"] = model  # not registered as a submodule
    _empty_unsharded(sharded)
    return sharded


def gather_back(sharded: DualEncoder) -> None:
    """Fill the model that was given to `shard` with the current weights; all processes call it.

    The sharded model is empty afterwards: whatever still refers to it holds no memory.
    """
    if not is_sharded(sharded):
        return
    _fill_unsharded(sharded)
    for weight in sharded.parameters():
        if isinstance(weight, DTensor):
            weight.to_local().untyped_storage().resize_(0)


@contextmanager
def temporarily_gathered(model: DualEncoder) -> Iterator[DualEncoder]:
    """Yield the whole model, gathered for the length of the block if it is sharded, to measure it."""
    if not is_sharded(model):
        yield model
        return
    _fill_unsharded(model)
    try:
        yield _unsharded(model)
    finally:
        _empty_unsharded(model)


def is_sharded(model: nn.Module) -> bool:
    """Return whether the model is sharded: then all processes must run the same layers together."""
    return isinstance(model, FSDPModule)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with the shards of all processes; all of them call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_tensors_on_rank0(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the whole tensors, in the main memory of the first process; the others get none. All call it.

    Tensors are gathered one at a time, and those returned are copies. If none is sharded, the given ones are
    returned.
    """
    if not any_sharded(tensors):
        return dict(tensors)
    whole = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor.detach())
        if collectives.rank() == 0:
            whole[name] = full.cpu() if isinstance(tensor, DTensor) else full.to("cpu", copy=True)
    return whole


def any_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether one of the tensors is sharded."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def local_numbers(weight: Tensor) -> int:
    """Return how many numbers of a weight this process holds."""
    return (weight.to_local() if isinstance(weight, DTensor) else weight).numel()


@contextmanager
def gathered_storages(model: nn.Module, storages: set[int]) -> Iterator[None]:
    """Add the storages of the weights that sharded layers gather inside the block, as each layer begins.

    Afterwards every layer is sharded again, also after a forward pass without a backward pass.
    """

    def add(module: nn.Module, _: Any) -> None:
        weights = module.parameters(recurse=False)
        storages.update(
            weight.untyped_storage()._cdata for weight in weights if not isinstance(weight, DTensor)
        )

    modules = list(model.modules()) if is_sharded(model) else []
    hooks = [module.register_forward_pre_hook(add) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in modules:
            if isinstance(module, FSDPModule):
                module.reshard()


def local_shard(value: Tensor, weight: Tensor) -> Tensor:
    """Return the shard of a whole tensor that this process needs for its shard of a weight."""
    value = value.to(weight.device)
    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def prepare(
    model: DualEncoder, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[Any, Any]:
    """Return model and optimizer as the loop uses them; a sharded model needs no data-parallel wrapper."""
    if is_sharded(model):
        return model, accelerator.prepare(optimizer)
    parallel_model, wrapped_optimizer = accelerator.prepare(model, optimizer)
    return parallel_model, wrapped_optimizer


def clip_gradients(model: DualEncoder, optimizer: Any, max_norm: float, accelerator: Accelerator) -> Tensor:
    """Return the norm () of all gradients after a step's last backward pass, and clip it to `max_norm`.

    `optimizer` is that of the stage, as Accelerate wraps it.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    if not is_sharded(model):
        # Of this optimizer alone: Accelerate's own function would unscale once for each earlier stage too.
        accelerator.unscale_gradients(optimizer)
        whole_norm: Tensor = clip_grad_norm_(weights, max_norm)
        return whole_norm
    # Sharded and whole tensors cannot be in one list.
    sharded = [weight for weight in weights if isinstance(weight, DTensor)]
    whole = [weight for weight in weights if not isinstance(weight, DTensor)]
    _average_gradients(whole)  # which FSDP does not exchange
    norms = [
        get_total_norm([weight.grad for weight in group if weight.grad is not None])
        for group in (sharded, whole)
        if group
    ]
    norm: Tensor = torch.stack([full_tensor(group_norm) for group_norm in norms]).norm()
    for group in (sharded, whole):
        clip_grads_with_norm_(group, max_norm, norm)
    return norm


def _average_gradients(weights: list[nn.Parameter]) -> None:
    """Set the gradients of whole weights to their mean over the processes, in one message."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    if not grads:
        return
    joined = collectives.mean(torch.cat([grad.reshape(-1) for grad in grads]))
    for grad, part in zip(grads, joined.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def _copy_modules(model: DualEncoder) -> DualEncoder:
    """Return other modules around the same weights, tokenizer and processor."""
    uncopied: list[Any] = [*model.parameters(), model.text_tokenizer.hf_tokenizer, model.hf_image_processor]
    return copy.deepcopy(model, {id(value): value for value in uncopied})


def _unsharded(sharded: DualEncoder) -> DualEncoder:
    model: DualEncoder = sharded.__dict__["unsharded"]
    return model


def _fill_unsharded(sharded: DualEncoder) -> None:
    current = sharded.weights()
    for name, weight in _unsharded(sharded).weights().items():
        weight.data = full_tensor(current[name]).detach()


def _empty_unsharded(sharded: DualEncoder) -> None:
    current = sharded.weights()
    for name, weight in _unsharded(sharded).weights().items():
        if isinstance(current[name], DTensor):
            weight.data = weight.data.new_empty(0)
