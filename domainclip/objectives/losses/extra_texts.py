"""Cross-entropy of rows that each have a right column of their own: for texts beside those of the pairs.

Columns that are right as well leave the denominator: those of a pair's own group, and those that the towers
cannot tell from the right one or from the row itself, as the same sentence in two reports.

Legend: r rows, c columns, d width, b pairs, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise

# Equal texts are encoded once in a process; what another process says of them differs by rounding, at most by
# 1e-5 of a cosine under bf16. Of 2,000 different sentences only those that differ in capitals or spaces alone
# lie closer than this (measured with a ViT-Ti/16). With dropout, equal texts of two processes differ.
ALIKE = 1 - 1e-4

Out = Callable[[Tensor], Tensor]  # (k,) numbers of rows -> (k, c) bool: columns that leave the denominator


def pick(rows: Tensor, right: Tensor, others: Tensor, out: Out, scale: Tensor) -> Tensor:
    """(r,) nats: −log of the share that the right column has among itself and the others.

    Shapes: rows and right (r, d), others (c, d). Row block by row block: the logits never stand whole, and
    are made again for the gradient.
    """
    size = max(1, blockwise.LOGITS // max(1, len(others)))
    if len(rows) <= size:
        return _pick(rows, right, others, torch.arange(len(rows), device=rows.device), out, scale)
    parts = []
    for start in range(0, len(rows), size):
        at = torch.arange(start, min(start + size, len(rows)), device=rows.device)
        given = (rows[at], right[at], others, at, out, scale)
        parts.append(checkpoint(_pick, *given, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def facing(views: Views, one: Tensor, other: Tensor, there: Tensor, scale: Tensor | None = None) -> Tensor:
    """(r,) nats of the pairs of this process: one side finds the other, and back; 0 where it is not there.

    Shapes: one and other (b, d), row by row of one pair; there (b,) bool. Only what is there is chosen from.
    `scale` is the model's own unless given.
    """
    scale = views.scale if scale is None else scale
    found = there.nonzero().flatten()
    mine = within(found, views.local_slice)
    own, first = found[mine], views.local_slice.start
    losses = one.new_zeros(views.local_slice.stop - first)
    for a, b in ((one, other), (other, one)):
        nats = pick(a[own], b[own], b[found], together(views, own, found), scale)
        losses = losses.index_add(0, own - first, nats / 2)
    return losses


def nt_xent(views: Views, one: Tensor, other: Tensor, there: Tensor, temperature: float) -> Tensor:
    """(r,) nats of the pairs of this process: each of two copies finds the other among both copies of all.

    Shapes: one and other (b, d), there (b,) bool; 0 where it is not there. [arXiv:2002.05709]
    """
    found, first = there.nonzero().flatten(), views.local_slice.start
    mine = within(found, views.local_slice)
    own = found[mine]
    rows, right = torch.cat([one[own], other[own]]), torch.cat([other[own], one[own]])
    everyone, out = torch.cat([one[found], other[found]]), together(views, own.repeat(2), found.repeat(2))
    nats = pick(rows, right, everyone, out, views.scale.new_tensor(1 / temperature))
    return one.new_zeros(views.local_slice.stop - first).index_add(0, own.repeat(2) - first, nats / 2)


def within(found: Tensor, own: slice) -> Tensor:
    """(n,) bool: which of these pairs are this process's."""
    mine: Tensor = (found >= own.start) & (found < own.stop)
    return mine


def together(views: Views, rows: Tensor, columns: Tensor) -> Out:
    """Which columns belong to the pair of a row, or to its group; both given by the pair of each."""
    group = torch.arange(len(views.image), device=rows.device) if views.group is None else views.group

    def out(at: Tensor) -> Tensor:
        of_rows, numbers = rows[at], group[columns]
        return (of_rows[:, None] == columns) | (group[of_rows][:, None] == numbers)

    return out


def _pick(rows: Tensor, right: Tensor, others: Tensor, at: Tensor, out: Out, scale: Tensor) -> Tensor:
    cosines = rows @ others.T
    excluded = out(at) | (cosines.detach() > ALIKE) | (right.detach() @ others.detach().T > ALIKE)
    logits = (cosines * scale).masked_fill(excluded, -torch.inf)
    own = (rows * right).sum(dim=-1, keepdim=True) * scale
    nats: Tensor = torch.cat([own, logits], dim=-1).logsumexp(dim=-1) - own[:, 0]
    return nats
