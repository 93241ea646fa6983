"""Cross-entropy of this process's pairs over scores that are not a plain product of two embeddings.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise


def mean_cross_entropy(
    views: Views, logits: Callable[[Tensor], Tensor], mask: RowMask | None, copies: int = 1
) -> Tensor:
    """() nats: the mean over the pairs of this process of −log of the softmax of the pair in its row.

    `logits` returns (k, b) for the pairs (k,), and holds about `copies` tensors of that size meanwhile. The
    columns that `mask` returns are no negatives. One block of rows at a time; the backward pass computes it
    again.
    """
    b = len(views.image)

    def nats(at: Tensor) -> Tensor:
        values, index = logits(at), torch.arange(len(at), device=at.device)
        target = values[index, at]
        if mask is not None:
            excluded = mask(at).scatter(1, at[:, None], False)
            values = values.masked_fill(excluded, -torch.inf)
        losses: Tensor = values.logsumexp(dim=1) - target
        return losses

    rows = torch.arange(views.local_slice.start, views.local_slice.stop, device=views.image.device)
    blocks = rows.split(max(1, blockwise.block_logits(rows.device) // (b * copies)))
    if len(blocks) == 1:
        return nats(rows).mean()
    parts = [checkpoint(nats, at, use_reentrant=False, preserve_rng_state=False) for at in blocks]
    return torch.cat(parts).mean()
