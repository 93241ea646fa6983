"""Cross-entropy of rows among candidates other than the batch's texts, such as further texts of each pair.

Columns that are positive too leave the denominator: those of the pair of a row and of pairs that share a
right text with it, and those that the towers cannot tell from the target or from the row itself, such as a
sentence of two reports.

Legend: r rows, c columns, d width, b pairs, n pairs of a selection, k rows of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from domainclip.data.batching.matches import Matches, RowMask
from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise

# A process encodes equal texts once; the embeddings of another process differ by rounding, by at most 1e-5 of
# a cosine under bf16. Of 2,000 different sentences only those that differ in capitals or spaces alone are
# more similar than this (measured with a ViT-Ti/16). With dropout, equal texts of two processes differ.
EQUAL_TEXT_COSINE = 1 - 1e-4


def cross_entropy_among(
    rows: Tensor, targets: Tensor, columns: Tensor, excluded: RowMask, scale: Tensor
) -> Tensor:
    """(r,) nats: −log of the softmax of the target of each row among itself and the columns.

    Shapes: rows and targets (r, d), columns (c, d). One block of rows at a time: the full logits never exist,
    and the backward pass computes them again.
    """
    size = max(1, blockwise.block_logits(rows.device) // max(1, len(columns)))
    if len(rows) <= size:
        every_row = torch.arange(len(rows), device=rows.device)
        return _block_losses(rows, targets, columns, every_row, excluded, scale)
    blocks = []
    for start in range(0, len(rows), size):
        at = torch.arange(start, min(start + size, len(rows)), device=rows.device)
        arguments = (rows[at], targets[at], columns, at, excluded, scale)
        blocks.append(checkpoint(_block_losses, *arguments, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(blocks)


def pair_losses(
    views: Views,
    first: Tensor,
    second: Tensor,
    exists: Tensor,
    scale: Tensor | None = None,
    matches: Matches | None = None,
) -> Tensor:
    """(r,) nats of the pairs of this process, in both directions; 0 for a pair that does not exist.

    Shapes: first and second (b, d), row by row of one pair; exists (b,) bool. Pairs that do not exist are no
    candidates. `scale` is that of the model by default. Where the first are images and the second are extra
    texts, `matches` is their relation.
    """
    scale = views.scale if scale is None else scale
    pairs = exists.nonzero().flatten()
    local, start = pairs[is_local(pairs, views.local_slice)], views.local_slice.start
    losses = first.new_zeros(views.local_slice.stop - start)
    masks = (None, None) if matches is None else (matches.right_texts, matches.right_images)
    for queries, candidates, mask in ((first, second, masks[0]), (second, first, masks[1])):
        excluded = matching_pair_mask(views, local, pairs, mask)
        nats = cross_entropy_among(queries[local], candidates[local], candidates[pairs], excluded, scale)
        losses = losses.index_add(0, local - start, nats / 2)
    return losses


def nt_xent(views: Views, first: Tensor, second: Tensor, exists: Tensor, temperature: float) -> Tensor:
    """(r,) nats of the pairs of this process: each of two copies among both copies of all pairs.

    Shapes: first and second (b, d), exists (b,) bool; 0 for a pair that does not exist. [arXiv:2002.05709]
    """
    pairs, start = exists.nonzero().flatten(), views.local_slice.start
    local = pairs[is_local(pairs, views.local_slice)]
    rows, targets = torch.cat([first[local], second[local]]), torch.cat([second[local], first[local]])
    columns = torch.cat([first[pairs], second[pairs]])
    excluded = matching_pair_mask(views, local.repeat(2), pairs.repeat(2))
    nats = cross_entropy_among(rows, targets, columns, excluded, views.scale.new_tensor(1 / temperature))
    return first.new_zeros(views.local_slice.stop - start).index_add(0, local.repeat(2) - start, nats / 2)


def first_extra_matches(views: Views) -> Matches | None:
    """Which first extra texts, one of each pair, are right for which images."""
    pairs = torch.arange(len(views.image), device=views.image.device)
    return views.extra_matches(pairs, torch.zeros_like(pairs))


def is_local(pairs: Tensor, local: slice) -> Tensor:
    """(n,) bool: which of these pairs belong to this process."""
    mask: Tensor = (pairs >= local.start) & (pairs < local.stop)
    return mask


def matching_pair_mask(views: Views, rows: Tensor, columns: Tensor, others: RowMask | None = None) -> RowMask:
    """Which columns belong to the pair of a row or to one that it shares a right text with.

    Shapes: rows (r,) and columns (c,), numbers of pairs. `others` returns further pairs for some pairs.
    """
    masks = [mask for mask in (views.pair_mask, others) if mask is not None]

    def excluded(at: Tensor) -> Tensor:
        same = rows[at][:, None] == columns
        for mask in masks:
            same |= mask(rows[at])[:, columns]
        return same

    return excluded


def _block_losses(
    rows: Tensor, targets: Tensor, columns: Tensor, at: Tensor, excluded: RowMask, scale: Tensor
) -> Tensor:
    cosines = rows @ columns.T
    like_row = cosines.detach() > EQUAL_TEXT_COSINE
    like_target = targets.detach() @ columns.detach().T > EQUAL_TEXT_COSINE
    logits = (cosines * scale).masked_fill(excluded(at) | like_row | like_target, -torch.inf)
    target_logits = (rows * targets).sum(dim=-1, keepdim=True) * scale
    nats: Tensor = torch.cat([target_logits, logits], dim=-1).logsumexp(dim=-1) - target_logits[:, 0]
    return nats
