"""Balanced assignment of rows to prototypes: every prototype gets an equal share of the batch.

Legend: b rows, k prototypes, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def balanced_assignment(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """(b, k) shares of each row, which sum to 1, from scores (b, k); each column sums to about b / k.

    The entropic optimal transport of Sinkhorn and Knopp, columns and rows divided by their sums in turn, the
    rows last [arXiv:1306.0895; arXiv:2006.09882 §3]. In logarithms, so that no temperature overflows.
    """
    shares = scores / temperature
    for _ in range(iterations):
        shares = shares - shares.logsumexp(dim=0, keepdim=True)
        shares = shares - shares.logsumexp(dim=1, keepdim=True)
    return shares.exp()


def prototype_scores(rows: Tensor, prototypes: Tensor) -> Tensor:
    """(b, k) cosines of rows (b, d) and prototypes (k, d or more), of which the first d dimensions count."""
    scores: Tensor = rows @ F.normalize(prototypes[:, : rows.shape[-1]].to(rows.dtype), dim=-1).T
    return scores


def initial_prototypes(count: int, width: int, seed: int) -> Tensor:
    """(k, d) random directions of unit length."""
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=draw), dim=-1)


def assignment_loss(shares: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """() nats: −mean over rows of Σ_k shares_k log softmax(scores / temperature)_k."""
    loss: Tensor = -(shares * (scores / temperature).log_softmax(dim=-1)).sum(dim=-1).mean()
    return loss
