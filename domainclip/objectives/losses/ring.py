"""The sigmoid loss around a ring of processes: blocks of texts are passed on, and no process holds all.

A softmax needs all columns of a row at once; the sigmoid loss is a sum over combinations. So a process keeps
its images, computes the loss against one block of texts, and passes the block on [arXiv:2303.15343 §3.3].
Gathering holds 4·b·d numbers on every process: both sides and their gradients. The ring holds at most two
blocks (r, d) of texts of other processes, the current and the arriving one, and as many of gradients. Each
process sends about 2·b·d numbers, where gathering both sides and summing both gradients takes 6·b·d.

Legend: w processes, r pairs of this process, b = w·r, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from domainclip.data.batching.matches import Matches, MatchKeys, RowMask
from domainclip.distributed import collectives
from domainclip.objectives.losses.blockwise import Kernel, mean_over_rows, sigmoid_pairs


def ring_mean(
    rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None = None, matches: Matches | None = None
) -> Tensor:
    """() the value of `mean_over_rows(sigmoid_pairs, …)` for the rows of this process and all columns.

    Shapes: rows, which are images, and columns, which are texts, (r, d), of this process, as `matches`; the
    target of row i is column i. Every process calls it with the same number of rows. The gradient of the
    columns is the sum over the processes, as in gathering.
    """
    mean: Tensor = _RingMean.apply(rows, columns, scale, bias, matches)
    return mean


class _RingMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None, matches: Matches | None
    ) -> Tensor:
        # Of a text, its group and caption decide which images it is right for; pools stay with their images.
        block = [columns] if matches is None else [columns, matches.texts.group, matches.texts.caption]
        sums = _Sums(torch.zeros_like(scale), [torch.zeros_like(leaf) for leaf in (rows, scale, scale)])
        grad_block = torch.zeros_like(columns)
        for hop in range(collectives.process_count()):
            last = hop == collectives.process_count() - 1
            receive = None if last else collectives.ring_exchange(block)  # during the computation
            kernel = _negatives_kernel(matches, *block[1:]) if hop else sigmoid_pairs
            mask = None if hop or matches is None else matches.right_texts
            grad_block += sums.add(kernel, rows, block[0], scale, bias, mask)
            # A gradient travels with its texts and is back after the last hop, so the backward pass needs no
            # communication.
            (grad_block,) = collectives.ring_exchange([grad_block])()
            block = block if receive is None else receive()
        grad_rows, grad_scale, grad_bias = sums.gradients
        ctx.save_for_backward(grad_rows, grad_block, grad_scale, None if bias is None else grad_bias)
        return sums.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if saved is None else saved * grad for saved in ctx.saved_tensors), None


@dataclass
class _Sums:
    """Sums over the blocks on this process: the loss, and its gradients at rows, scale and bias."""

    loss: Tensor
    gradients: list[Tensor]

    @torch.enable_grad()
    def add(
        self,
        kernel: Kernel,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        mask: RowMask | None,
    ) -> Tensor:
        """Add one block of columns; (r, d) the gradient at them."""
        inputs = (rows, columns, scale, torch.zeros_like(scale) if bias is None else bias)
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        row_leaf, column_leaf, scale_leaf, bias_leaf = leaves
        loss = mean_over_rows(kernel, row_leaf, column_leaf, scale_leaf, bias_leaf, mask)
        grad_rows, grad_columns, *others = torch.autograd.grad(loss, leaves)
        self.loss += loss.detach()
        for total, gradient in zip(self.gradients, (grad_rows, *others), strict=True):
            total += gradient
        return grad_columns


def _negatives_kernel(matches: Matches | None, *text_keys: Tensor) -> Kernel:
    """The kernel for texts of another process: all negatives, those that are right for a row left out.

    `text_keys` are the group and the caption (r,) of each text.
    """
    across = None
    if matches is not None:
        group, caption = text_keys
        across = Matches(matches.images, MatchKeys(group, caption, matches.texts.pool))

    def kernel(logits: Tensor, target: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        excluded = None if across is None else across.right_texts(target)
        return sigmoid_pairs(logits, target, excluded, positives=lambda target: target[:0])

    return kernel
