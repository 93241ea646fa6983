"""Matrix products by oneDNN on the processors where it is faster than torch's default, MKL.

torch multiplies fp32 matrices with MKL, which uses AVX-512 on Intel's processors only. oneDNN, which torch
contains too, also uses it on AMD's and is twice as fast there; only the order of sums differs. torch has no
public way to it: `is_faster` guards the private one, and DOMAINCLIP_ONEDNN=0 turns it off.

Shapes: n rows, i and o widths before and after.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

SWITCH = "DOMAINCLIP_ONEDNN"  # "0": never use it
_CPU_INFO = Path("/proc/cpuinfo")
_CACHE_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_MIN_MULTIPLICATIONS = 2**21  # in smaller products the detour takes longer than it saves
_disabled = False


def enabled() -> AbstractContextManager[Any]:
    """Inside, large fp32 products on the CPU and their gradients use oneDNN, where that is faster."""
    return _UseOneDnn() if is_faster() else nullcontext()


@contextmanager
def disabled() -> Iterator[None]:
    """Inside, torch's default is used for all products, whatever their size."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before


def checkpoint_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of a checkpointed layer: none of its own in the forward pass, oneDNN in its recomputation."""
    return nullcontext(), enabled()


def device_key(device: str) -> str:
    """The device and its library, for cache keys: another library rounds differently."""
    return f"{device}, oneDNN" if device == "cpu" and is_faster() else device


@cache
def is_faster() -> bool:
    """Whether this processor gains, and torch offers the product; by its maker, so that all runs agree."""
    if os.environ.get(SWITCH) == "0":
        return False
    processor = _CPU_INFO.read_text(errors="ignore") if _CPU_INFO.is_file() else platform.processor()
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "AuthenticAMD" in processor and has_avx512 and torch.backends.mkldnn.is_available() and _works()


def _works() -> bool:
    """Whether this torch still has the private product, under that name and with those arguments."""
    # A compiled product takes about 0.4 MB, and texts have ever new shapes: of the 1,024 that oneDNN caches,
    # few are used twice. It reads this variable at the first product.
    os.environ.setdefault(_CACHE_CAPACITY, "32")
    rows, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        return torch.equal(_product(rows, weight, bias), F.linear(rows, weight, bias))  # integers: exact
    except (AttributeError, RuntimeError, TypeError):
        return False


class _UseOneDnn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is F.linear and not options and _gains(*args):
            return _Linear.apply(args[0], args[1], args[2] if len(args) > 2 else None)
        return func(*args, **options)


def _gains(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    # Not a subclass of another library: quantized, or distributed over processes.
    plain = all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        for tensor in (rows, weight, bias)
        if tensor is not None
    )
    # oneDNN reads a bias as if it were contiguous, with one number for each column.
    fits = bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous())
    large = rows.numel() * weight.shape[0] >= _MIN_MULTIPLICATIONS
    # Under autocast the product is in bf16, which is oneDNN's in any case.
    return plain and fits and large and not _disabled and not torch.is_autocast_enabled("cpu")


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(n, o) from (n, i) and (o, i)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    """`F.linear`, with gradients of the tensors that need them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(…, o) from (…, i)."""
        rows_need_grad, weight_needs_grad, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if weight_needs_grad else None, weight if rows_need_grad else None)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of rows, weight and bias; None where none is needed."""
        rows, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        rows_grad = None if weight is None else _product(flat, weight.t()).view(*grad.shape[:-1], -1)
        weight_grad = None if rows is None else _product(flat.t(), rows.reshape(len(flat), -1).t())
        return rows_grad, weight_grad, flat.sum(0) if ctx.needs_input_grad[2] else None
