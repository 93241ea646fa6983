"""The sigmoid loss around a ring of processes: texts come by block after block, and nowhere stand whole.

In a softmax each row needs all columns at once. Here each combination is a question of its own, so a process
keeps its images, works on the texts that are at hand, and passes them on [arXiv:2303.15343 §3.3]. Gathering
holds 4·b·d numbers on every process: both sides and their gradients. The ring holds two blocks (r, d) at most
of others' texts, the one at hand and the one that arrives, and as many of gradients. Each process sends about
2·b·d numbers, where gathering both sides and summing both gradients takes 6·b·d.

Legend: w processes, r pairs of this process, b = w·r, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from domainclip.distributed import collectives
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows, sigmoid_pairs


def mean_around(
    rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None = None, group: Tensor | None = None
) -> Tensor:
    """() what `mean_over_rows(yes_or_no, …)` gives for the rows of this process, of all columns.

    Shapes: rows and columns (r, d), group (r,), all of this process; row i belongs to column i. Every process
    calls it, with as many rows. The gradient of the columns is the sum over the processes, as in gathering.
    """
    found: Tensor = _Around.apply(rows, columns, scale, bias, group)
    return found


class _Around(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None, group: Tensor | None
    ) -> Tensor:
        here = [columns] if group is None else [columns, group]
        sums = _Sums(torch.zeros_like(scale), [torch.zeros_like(one) for one in (rows, scale, scale)])
        homing = torch.zeros_like(columns)
        for hop in range(collectives.process_count()):
            last = hop == collectives.process_count() - 1
            coming = None if last else collectives.ring_exchange(here)  # while the block at hand is worked on
            kernel = _apart(group, here[-1]) if hop else sigmoid_pairs
            homing += sums.add(kernel, rows, here[0], scale, bias, None if hop else group)
            # Gradients go with the texts they belong to, and are home after the last hop: so going backward
            # says nothing to anybody.
            (homing,) = collectives.ring_exchange([homing])()
            here = here if coming is None else coming()
        of_rows, of_scale, of_bias = sums.slopes
        ctx.save_for_backward(of_rows, homing, of_scale, None if bias is None else of_bias)
        return sums.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if one is None else one * grad for one in ctx.saved_tensors), None


@dataclass
class _Sums:
    """What has been added up on this process: the loss, and its gradient at rows, scale and bias."""

    loss: Tensor
    slopes: list[Tensor]

    @torch.enable_grad()
    def add(
        self,
        kernel: Kernel,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        group: Tensor | None,
    ) -> Tensor:
        """Adds one block of columns; (r, d) the gradient at them."""
        given = (rows, columns, scale, torch.zeros_like(scale) if bias is None else bias)
        one, other, times, plus = leaves = [tensor.detach().requires_grad_() for tensor in given]
        loss = mean_over_rows(kernel, one, other, times, plus, group)
        of_rows, of_columns, *others = torch.autograd.grad(loss, leaves)
        self.loss += loss.detach()
        for total, found in zip(self.slopes, (of_rows, *others), strict=True):
            total += found
        return of_columns


def _apart(mine: Tensor | None, theirs: Tensor) -> Kernel:
    """The kernel for texts of another process: none belongs to a row, those of its group are left out."""

    def kernel(logits: Tensor, own: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        excluded = None if mine is None else mine[own][:, None] == theirs[None, :]
        return sigmoid_pairs(logits, own, excluded, together=lambda own: own[:0])

    return kernel
