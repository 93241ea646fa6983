"""Matrix products by the library that is faster on this processor.

torch multiplies fp32 matrices with MKL, which uses AVX-512 on Intel's processors alone. oneDNN, which torch
brings too, uses it on AMD's as well and is twice as fast there: all that differs is the order of sums.

Legend: n rows, i and o widths before and after.
"""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_CPU = Path("/proc/cpuinfo")
_PLANS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_LEAST = 2**21  # multiplications; in smaller products the way there takes longer than what it saves


def enabled() -> AbstractContextManager[Any]:
    """Inside, large fp32 products on this processor go to the faster library, and so do their gradients."""
    return _ByOneDnn() if is_faster() else nullcontext()


def checkpoint_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For a checkpointed layer: as it stands in the forward pass, and the same again in the backward."""
    return nullcontext(), enabled()


def device_key(device: str) -> str:
    """The device and what multiplies there, for keys of what is kept: another library rounds otherwise."""
    return f"{device}, oneDNN" if device == "cpu" and is_faster() else device


@cache
def is_faster() -> bool:
    """Whether this is a processor for it: by its maker, not by the clock, so that all runs decide alike."""
    said = _CPU.read_text(errors="ignore") if _CPU.is_file() else platform.processor()
    able = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    return "AuthenticAMD" in said and able and _answers()


def _answers() -> bool:
    """Whether this torch still has the product, a private one, under that name and with those arguments."""
    # A plan takes about 0.4 MB, and texts come in ever new shapes: of the 1,024 that oneDNN keeps few
    # are used twice. It reads this when it makes the first.
    os.environ.setdefault(_PLANS, "32")
    rows, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        return torch.equal(_product(rows, weight, bias), F.linear(rows, weight, bias))  # whole numbers: exact
    except (AttributeError, RuntimeError, TypeError):
        return False


class _ByOneDnn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is F.linear and not options and _large(*args):
            return _Linear.apply(args[0], args[1], args[2] if len(args) > 2 else None)
        return func(*args, **options)


def _large(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    # Not what another library has made of a tensor: quantised, or in pieces on several processes.
    plain = all(
        type(one) in (Tensor, nn.Parameter) and one.device.type == "cpu" and one.dtype == torch.float32
        for one in (rows, weight, bias)
        if one is not None
    )
    # A bias is read as if it lay in one piece, one number for each column.
    fits = bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous())
    # Under autocast the product is one of bf16, which is oneDNN's in any case.
    return (
        plain and fits and rows.numel() * weight.shape[0] >= _LEAST and not torch.is_autocast_enabled("cpu")
    )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(n, o) from (n, i) and (o, i)."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    """What `F.linear` does, with the gradients of what learns."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(…, o) from (…, i)."""
        rows_learn, weight_learns, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if weight_learns else None, weight if rows_learn else None)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of rows, weight and bias; None for what is locked."""
        rows, weight = ctx.saved_tensors
        flat = above.reshape(-1, above.shape[-1])
        at_rows = None if weight is None else _product(flat, weight.t()).view(*above.shape[:-1], -1)
        at_weight = None if rows is None else _product(flat.t(), rows.reshape(len(flat), -1).t())
        return at_rows, at_weight, flat.sum(0) if ctx.needs_input_grad[2] else None
