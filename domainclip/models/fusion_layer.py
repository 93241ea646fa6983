"""A transformer layer that fuses an embedding with others that were retrieved for it [arXiv:2306.07196].

Only the output at the query is computed. The weights are plain tensors by name.
Shapes: n queries, k retrieved embeddings of a query, d embedding width, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def initial_weights(width: int, draw: torch.Generator) -> dict[str, Tensor]:
    """The weights at the start, where a refined embedding is the embedding itself."""
    return {
        "kinds": 0.02 * torch.randn(2, width, generator=draw),  # of the query, and of the retrieved ones
        "attention_in": torch.randn(3, width, width, generator=draw) / sqrt(width),
        "attention_out": torch.zeros(width, width),
        "mlp_in": torch.randn(4 * width, width, generator=draw) / sqrt(width),
        "mlp_out": torch.zeros(width, 4 * width),
    }


def refine(weights: Weights, queries: Tensor, retrieved: Tensor, heads: int) -> Tensor:
    """(n, d) of unit length, of queries (n, d) and what was retrieved for each (n, k, d)."""
    tokens = torch.cat([queries[:, None] + weights["kinds"][0], retrieved + weights["kinds"][1]], dim=1)
    rows = F.layer_norm(tokens, tokens.shape[-1:])
    by_head = (one.unflatten(0, (heads, -1)) for one in weights["attention_in"])  # (h, d/h, d)
    to_query, to_key, to_value = by_head
    # One query for k + 1 tokens: it takes the matrix of the keys, and their mean that of the values.
    query = torch.einsum("nd,hed->nhe", rows[:, 0], to_query)
    scores = torch.einsum("nhd,nkd->nhk", torch.einsum("nhe,hed->nhd", query, to_key), rows)
    shares = (scores / sqrt(query.shape[-1])).softmax(dim=-1)
    mean = torch.einsum("nhk,nkd->nhd", shares, rows)
    context = torch.einsum("nhd,hed->nhe", mean, to_value).flatten(1)
    hidden = queries + context @ weights["attention_out"].T
    inner = F.gelu(F.layer_norm(hidden, hidden.shape[-1:]) @ weights["mlp_in"].T)
    return F.normalize(hidden + inner @ weights["mlp_out"].T, dim=-1)
