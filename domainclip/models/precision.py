"""Numerical precision of a model without gradients: in an evaluation, and below trained layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np
import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
_AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def computes_in_bf16() -> bool:
    """Whether there is a GPU that computes in bf16.

    Counted with emulation, every GPU has bf16, and those that emulate it are slower than in fp32.
    """
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def evaluation_precision(requested: Literal["auto", "fp32", "tf32", "bf16"]) -> Precision:
    """Precision of an evaluation: `auto` is bf16 on a GPU that computes in it, else fp32."""
    if requested == "auto":
        return "bf16" if computes_in_bf16() else "fp32"
    return requested


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, layers compute in this precision; weights, inputs and the scaling to unit length stay fp32.

    The precision of the products outside is restored.
    """
    before = torch.get_float32_matmul_precision()
    dtype = _AUTOCAST.get(precision)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with nullcontext() if dtype is None else torch.autocast(device.type, dtype):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def largest_cosine_distance(rows: np.ndarray, exact: np.ndarray) -> float:
    """The largest cosine distance between a row of one array (n, …, w) and that of the other; 0 for zeros."""
    one, other = (array.reshape(-1, array.shape[-1]).astype(np.float64) for array in (rows, exact))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    cosines = np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0)
    return float(np.max(1 - cosines))
