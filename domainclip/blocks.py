"""Losses over all combinations of two sides, row block by row block: the logits never stand whole.

Each process takes its own rows against the columns of all, so a batch over w processes costs each of them
1/w of the arithmetic. Loss and gradients are found in one pass, as the gradient at the logits is at hand
while the block is.

Legend: r rows of this process, b columns of all processes, d width, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS = 2**20  # how many stand at once: 4 MiB in fp32

# (k, b) logits, (k,) the column that belongs to each row, (k, b) bool: combinations that are neither right
# nor wrong. Gives (k,) losses and (k, b) their gradients at the logits; it may write into the logits.
Kernel = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def mean_over_rows(
    kernel: Kernel,
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    group: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """() the mean of the rows' losses; row i belongs to column `first` + i.

    Shapes: rows (r, d), columns (b, d), group (b,): within a group, other columns than a row's own are
    neither right nor wrong for it.
    """
    total: Tensor = _Blocked.apply(kernel, rows, columns, scale, bias, group, first)
    return total / len(rows)


def softmax(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row: log Σ_j exp z_ij − z_i,own."""
    here = torch.arange(len(own), device=own.device)
    if excluded is not None:
        logits = logits.masked_fill_(excluded, -torch.inf)
    log_sum = logits.logsumexp(dim=1)
    losses = log_sum - logits[here, own]
    slopes = logits.sub_(log_sum[:, None]).exp_()
    slopes[here, own] -= 1
    return losses, slopes


def yes_or_no(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ_j of −log σ(±z_ij), the sign + at a row's own column only."""
    here = torch.arange(len(own), device=own.device)
    logits[here, own] *= -1
    losses, slopes = F.softplus(logits), logits.sigmoid_()
    slopes[here, own] *= -1
    if excluded is not None:
        losses, slopes = losses.masked_fill_(excluded, 0), slopes.masked_fill_(excluded, 0)
    return losses.sum(dim=1), slopes


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        group: Tensor | None,
        first: int,
    ) -> Tensor:
        of_rows = torch.zeros_like(rows) if ctx.needs_input_grad[1] else None
        of_columns = torch.zeros_like(columns) if ctx.needs_input_grad[2] else None
        of_scale, of_bias = torch.zeros_like(scale), torch.zeros_like(scale)
        losses = []
        size = max(1, LOGITS // len(columns))
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            own = torch.arange(start, start + len(block), device=rows.device) + first
            logits = (block @ columns.T).mul_(scale)
            if bias is not None:
                logits.add_(bias)
            loss, slopes = kernel(logits, own, _excluded(own, group))
            losses.append(loss)
            drawn = slopes @ columns  # (k, d)
            of_scale += (drawn * block).sum()
            of_bias += slopes.sum()
            if of_rows is not None:
                torch.mul(drawn, scale, out=of_rows[start : start + size])
            if of_columns is not None:
                of_columns.addmm_(slopes.T, block * scale)
        ctx.save_for_backward(of_rows, of_columns, of_scale, None if bias is None else of_bias)
        return torch.cat(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_columns, of_scale, of_bias = (
            None if found is None else found * grad for found in ctx.saved_tensors
        )
        return None, of_rows, of_columns, of_scale, of_bias, None, None


def _excluded(own: Tensor, group: Tensor | None) -> Tensor | None:
    """(k, b) bool: another pair of a row's group; never the row's own."""
    if group is None:
        return None
    same = group[own][:, None] == group[None, :]
    same[torch.arange(len(own), device=own.device), own] = False
    return same
