"""Losses over all combinations of two sides, row block by row block: the logits never stand whole.

Each process takes its own rows against the columns of all, so a batch over w processes costs each of them
1/w of the arithmetic. Loss and gradients are found in one pass, as the gradient at the logits is at hand
while the block is.

Legend: r rows of this process, b columns of all processes, d width, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def per_row(
    kernel: Kernel, rows: Tensor, columns: Tensor, scale: Tensor, group: Tensor | None = None, first: int = 0
) -> Tensor:
    """(r,) the rows' losses, each its own, without gradient."""
    with torch.no_grad():
        blocks = _blocks(rows, columns, scale, None, first)
        return torch.cat([kernel(logits, own, _excluded(own, group))[0] for _, own, logits in blocks])


def with_derivative(losses: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Kernel:
    """A kernel from its losses (k,) alone: their gradient is taken block by block, so nothing stands whole.

    `losses` must not write into the logits. Excluded combinations stand in them with their logits.
    """

    def kernel(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            found = losses(leaf, own, excluded)
            (slopes,) = torch.autograd.grad(found.sum(), leaf)
        return found.detach(), slopes

    return kernel


def weighted_mean(kernel: Kernel, weight: Tensor) -> Kernel:
    """The kernel with each row's loss times its `weight` (b,), by the column that belongs to the row."""

    def times(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        losses, slopes = kernel(logits, own, excluded)
        return losses * weight[own], slopes.mul_(weight[own, None])

    return times


def toward_targets(targets: Callable[[Tensor, Tensor | None], Tensor]) -> Kernel:
    """Cross-entropy of each row with a target distribution: log Σ_j exp z_ij − Σ_j t_ij z_ij.

    `targets(own, excluded)` gives (k, b) rows that are ≥ 0 and add up to 1, with nothing on what is excluded.
    """

    def kernel(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        wanted = targets(own, excluded)
        said = (wanted * logits).sum(dim=1)  # before minus infinity stands there: 0 · −∞ is no number
        if excluded is not None:
            logits = logits.masked_fill_(excluded, -torch.inf)
        log_sum = logits.logsumexp(dim=1)
        return log_sum - said, logits.sub_(log_sum[:, None]).exp_().sub_(wanted)

    return kernel


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


def sigmoid_pairs(
    logits: Tensor, own: Tensor, excluded: Tensor | None, together: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Σ_j of −log σ(±z_ij), the sign + at a row's own column, and where `together(own)` (k, b) holds."""
    here = torch.arange(len(own), device=own.device)
    yes = (here, own) if together is None else together(own)
    logits[yes] *= -1
    losses, slopes = F.softplus(logits), logits.sigmoid_()
    slopes[yes] *= -1
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
        for place, own, logits in _blocks(rows, columns, scale, bias, first):
            block = rows[place]
            loss, slopes = kernel(logits, own, _excluded(own, group))
            losses.append(loss)
            drawn = slopes @ columns  # (k, d)
            of_scale += (drawn * block).sum()
            of_bias += slopes.sum()
            if of_rows is not None:
                torch.mul(drawn, scale, out=of_rows[place])
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


def _blocks(
    rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None, first: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Block by block: which rows, the column of each (k,), and their logits (k, b)."""
    size = max(1, LOGITS // len(columns))
    for start in range(0, len(rows), size):
        place = slice(start, min(start + size, len(rows)))
        own = torch.arange(place.start, place.stop, device=rows.device) + first
        logits = (rows[place] @ columns.T).mul_(scale)
        if bias is not None:
            logits.add_(bias)
        yield place, own, logits


def _excluded(own: Tensor, group: Tensor | None) -> Tensor | None:
    """(k, b) bool: another pair of a row's group; never the row's own."""
    if group is None:
        return None
    same = group[own][:, None] == group[None, :]
    same[torch.arange(len(own), device=own.device), own] = False
    return same
