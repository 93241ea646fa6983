"""A small transformer that predicts the tokens of a caption from the tokens of an image.

Each layer has self-attention over the caption, cross-attention to the image and an MLP, each behind a norm.
The weights are plain tensors by name, so that an objective may own them.
Shapes: b items, l tokens of a caption, n image tokens, d their width, w the decoder's width, h heads,
v tokens of the vocabulary, q latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

END = 0  # the output that ends a caption; token i of the vocabulary is output 1 + i
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class DecoderShape:
    """The size of a decoder."""

    layers: int
    heads: int  # h; w is a multiple of it
    width: int  # w
    latents: int | None  # q; None: the decoder reads all image tokens


def initial_weights(
    shape: DecoderShape, image_width: int, vocabulary: int, length: int, seed: int
) -> dict[str, Tensor]:
    """The weights at the start, by name, for captions of up to `length` tokens."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(*sizes: int) -> Tensor:
        drawn: Tensor = torch.randn(*sizes, generator=draw) / sqrt(sizes[-1])
        return drawn

    w = shape.width
    weights = {
        # Rows of the vocabulary's outputs, then the inputs of the start and of a hidden token.
        "tokens": 0.02 * torch.randn(vocabulary + 3, w, generator=draw),
        "position": 0.02 * torch.randn(length + 1, w, generator=draw),
        "image": matrix(w, image_width),
        **layer_weights(shape, matrix),
        # Factors of the norms as their difference to 1, so that weight decay pulls them towards 1.
        "norms": torch.zeros(3 * shape.layers + 2, w),
    }
    if shape.latents is not None:
        weights |= {"latents": matrix(shape.latents, w) * sqrt(w), "pool_in": matrix(2, w, w)}
    return weights


def layer_weights(shape: DecoderShape, matrix: Callable[..., Tensor]) -> dict[str, Tensor]:
    """The weights of the layers without their norms, where `matrix` draws one of some sizes."""
    layers, w = shape.layers, shape.width
    return {
        "self_in": matrix(layers, 3, w, w),
        "self_out": matrix(layers, w, w) / sqrt(6 * layers),
        "cross_in": matrix(layers, 3, w, w),
        "cross_out": matrix(layers, w, w) / sqrt(6 * layers),
        "mlp_in": matrix(layers, 4 * w, w),
        "mlp_out": matrix(layers, w, 4 * w) / sqrt(6 * layers),
    }


def token_logits(
    weights: Weights, shape: DecoderShape, image_tokens: Tensor, inputs: Tensor, causal: Tensor
) -> Tensor:
    """(b, l, v + 1) logits of the token behind each of `inputs` (b, l), rows of `tokens`.

    `causal` (b,) bool: whether a position reads only itself and those before it; else it reads all.
    """
    weights = {name: weight.to(image_tokens.dtype) for name, weight in weights.items()}
    image = _image_memory(weights, shape, image_tokens)
    length = inputs.shape[1]
    hidden = weights["tokens"][inputs] + weights["position"][:length]
    before = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
    readable = (before | ~causal[:, None, None])[:, None]  # (b, 1, l, l)
    hidden = run_layers(weights, shape, hidden, image, readable)
    logits: Tensor = norm(hidden, weights["norms"][-1]) @ weights["tokens"][:-2].T
    return logits


def run_layers(
    weights: Weights,
    shape: DecoderShape,
    hidden: Tensor,
    memory: Tensor,
    readable: Tensor | None = None,
    memory_readable: Tensor | None = None,
) -> Tensor:
    """(b, l, w) of the inputs (b, l, w), which read each other and a memory (b, n, w).

    `readable` (b, 1, l, l) and `memory_readable` (b, 1, 1, n) bool: what each input reads; None: all.
    """
    for at in range(shape.layers):
        norms = weights["norms"][3 * at : 3 * at + 3]
        rows = norm(hidden, norms[0])
        query, key, value = (rows @ one.T for one in weights["self_in"][at])
        hidden = hidden + _attend(query, key, value, shape.heads, readable) @ weights["self_out"][at].T
        rows, (to_query, to_key, to_value) = norm(hidden, norms[1]), weights["cross_in"][at]
        context = _attend(
            rows @ to_query.T, memory @ to_key.T, memory @ to_value.T, shape.heads, memory_readable
        )
        hidden = hidden + context @ weights["cross_out"][at].T
        inner = F.gelu(norm(hidden, norms[2]) @ weights["mlp_in"][at].T)
        hidden = hidden + inner @ weights["mlp_out"][at].T
    return hidden


def start_row(weights: Weights) -> int:
    """The row of `tokens` that begins a caption."""
    return len(weights["tokens"]) - 2


def hidden_row(weights: Weights) -> int:
    """The row of `tokens` that stands for a token that is not shown."""
    return len(weights["tokens"]) - 1


def _image_memory(weights: Weights, shape: DecoderShape, tokens: Tensor) -> Tensor:
    """(b, n, w), or (b, q, w) where latents gather the image tokens; of d dimensions the first ones count."""
    rows = norm(tokens @ weights["image"][:, : tokens.shape[-1]].T, weights["norms"][-2])
    if shape.latents is None:
        return rows
    query = weights["latents"].expand(len(rows), -1, -1)
    key, value = (rows @ one.T for one in weights["pool_in"])
    return _attend(query, key, value, shape.heads)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, readable: Tensor | None = None) -> Tensor:
    q, k, v = (rows.unflatten(-1, (heads, -1)).transpose(1, 2) for rows in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=readable).transpose(1, 2).flatten(2)


def norm(rows: Tensor, factor: Tensor) -> Tensor:
    """Rows of mean 0 and variance 1, times 1 + factor."""
    return F.layer_norm(rows, rows.shape[-1:]) * (1 + factor)
