"""Losses over all combinations of rows and columns, one block of rows at a time: the full logits never exist.

Each process takes its rows against the columns of all processes, so a batch over w processes costs each of
them 1/w of the arithmetic. Loss and gradients are computed in one pass, while the logits of a block exist.

Legend: r rows of this process, b columns of all processes, d width, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from domainclip.data.batching.matches import RowMask

MAX_LOGITS = 2**20  # of one block on a CPU: 4 MiB in fp32
_SHARE_OF_GPU = 512  # a block's logits take this part of a GPU's memory: small blocks leave it idle

# Takes (k, b) logits, (k,) the target column of each row, and (k, b) bool, the combinations that are neither
# positive nor negative. Returns (k,) losses and (k, b) their gradients at the logits, which it may overwrite.
Kernel = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def block_logits(device: torch.device) -> int:
    """The logits of one block: on a GPU of 24 GB 12 million, of which a step holds a few copies."""
    if device.type != "cuda":
        return MAX_LOGITS
    return max(MAX_LOGITS, torch.cuda.get_device_properties(device).total_memory // (4 * _SHARE_OF_GPU))


def mean_over_rows(
    kernel: Kernel,
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    mask: RowMask | None = None,
    first: int = 0,
) -> Tensor:
    """() the mean of the losses of all rows; the target of row i is column `first` + i.

    Shapes: rows (r, d), columns (b, d). `mask` takes the targets of some rows: among the columns that it
    returns, a row has no positive and no negative but its target.
    """
    total: Tensor = _Blocked.apply(kernel, rows, columns, scale, bias, mask, first)
    return total / len(rows)


def loss_per_row(
    kernel: Kernel, rows: Tensor, columns: Tensor, scale: Tensor, mask: RowMask | None = None, first: int = 0
) -> Tensor:
    """(r,) the loss of each row, without gradient."""
    with torch.no_grad():
        blocks = _blocks(rows, columns, scale, None, first)
        return torch.cat([kernel(logits, target, _excluded(target, mask))[0] for _, target, logits in blocks])


def kernel_from_losses(losses: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Kernel:
    """A kernel from a function that returns the losses (k,) alone; autograd gives their gradient.

    `losses` must not write into the logits, in which excluded combinations have their values.
    """

    def kernel(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            values = losses(leaf, target, excluded)
            (gradients,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), gradients

    return kernel


def weighted_kernel(kernel: Kernel, weight: Tensor) -> Kernel:
    """The kernel with the loss of each row times the `weight` (b,) of its target."""

    def weighted(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        losses, gradients = kernel(logits, target, excluded)
        return losses * weight[target], gradients.mul_(weight[target, None])

    return weighted


def soft_cross_entropy(targets: Callable[[Tensor, Tensor | None], Tensor]) -> Kernel:
    """Cross-entropy of each row with a target distribution: log Σ_j exp z_ij − Σ_j t_ij z_ij.

    `targets(target, excluded)` returns (k, b) rows t ≥ 0 that sum to 1, with 0 at excluded combinations.
    """

    def kernel(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = targets(target, excluded)
        expected = (distribution * logits).sum(dim=1)  # before masking, because 0 · −∞ is NaN
        if excluded is not None:
            logits = logits.masked_fill_(excluded, -torch.inf)
        log_sum = logits.logsumexp(dim=1)
        return log_sum - expected, logits.sub_(log_sum[:, None]).exp_().sub_(distribution)

    return kernel


def cross_entropy(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row with its target t: log Σ_j exp z_ij − z_it."""
    index = torch.arange(len(target), device=target.device)
    if excluded is not None:
        logits = logits.masked_fill_(excluded, -torch.inf)
    log_sum = logits.logsumexp(dim=1)
    losses = log_sum - logits[index, target]
    gradients = logits.sub_(log_sum[:, None]).exp_()
    gradients[index, target] -= 1
    return losses, gradients


def sigmoid_pairs(
    logits: Tensor,
    target: Tensor,
    excluded: Tensor | None,
    positives: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ_j −log σ(±z_ij), with + at the target of a row and where `positives(target)` (k, b) is true."""
    index = torch.arange(len(target), device=target.device)
    positive = (index, target) if positives is None else positives(target)
    logits[positive] *= -1
    losses, gradients = F.softplus(logits), logits.sigmoid_()
    gradients[positive] *= -1
    if excluded is not None:
        losses, gradients = losses.masked_fill_(excluded, 0), gradients.masked_fill_(excluded, 0)
    return losses.sum(dim=1), gradients


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        mask: RowMask | None,
        first: int,
    ) -> Tensor:
        grad_rows = torch.zeros_like(rows) if ctx.needs_input_grad[1] else None
        grad_columns = torch.zeros_like(columns) if ctx.needs_input_grad[2] else None
        grad_scale, grad_bias = torch.zeros_like(scale), torch.zeros_like(scale)
        losses = []
        for block_rows, target, logits in _blocks(rows, columns, scale, bias, first):
            block = rows[block_rows]
            loss, gradients = kernel(logits, target, _excluded(target, mask))
            losses.append(loss)
            weighted_columns = gradients @ columns  # (k, d)
            grad_scale += (weighted_columns * block).sum()
            grad_bias += gradients.sum()
            if grad_rows is not None:
                torch.mul(weighted_columns, scale, out=grad_rows[block_rows])
            if grad_columns is not None:
                grad_columns.addmm_(gradients.T, block * scale)
        ctx.save_for_backward(grad_rows, grad_columns, grad_scale, None if bias is None else grad_bias)
        return torch.cat(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_rows, grad_columns, grad_scale, grad_bias = (
            None if saved is None else saved * grad for saved in ctx.saved_tensors
        )
        return None, grad_rows, grad_columns, grad_scale, grad_bias, None, None


def _blocks(
    rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None, first: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each block its rows, their targets (k,) and their logits (k, b)."""
    size = max(1, block_logits(rows.device) // len(columns))
    for start in range(0, len(rows), size):
        block_rows = slice(start, min(start + size, len(rows)))
        target = torch.arange(block_rows.start, block_rows.stop, device=rows.device) + first
        logits = (rows[block_rows] @ columns.T).mul_(scale)
        if bias is not None:
            logits.add_(bias)
        yield block_rows, target, logits


def _excluded(target: Tensor, mask: RowMask | None) -> Tensor | None:
    """(k, b) bool: the masked columns of a row, never its target."""
    return None if mask is None else mask(target).scatter_(1, target[:, None], False)
