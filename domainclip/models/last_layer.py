"""Compute a tower's last layer only at the position that its embedding is made of.

An embedding is made of one token: the class token of an image, the end of a text. Of the other tokens, the
last layer needs keys and values alone; their queries, output projection and MLP, 10/12 of its arithmetic,
would be discarded. Exact, gradients included: none of the omitted numbers has a path to the embedding.

Shapes: b items, t tokens or patches, w width of the tower.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainclip.models import frozen_prefix, layers

TokenPosition = Tensor | int  # (b,) of each row, or the same in all


class _Names(NamedTuple):
    """The attribute names of a layer's components."""

    norm: str
    attention: str
    out: str
    dropout: str
    norm2: str


_CLIP = _Names("layer_norm1", "self_attn", "out_proj", "dropout", "layer_norm2")
_VIT = _Names("layernorm_before", "attention", "o_proj", "attention_dropout", "layernorm_after")
# By name, so that nothing is imported for it, and without subclasses, which may compute something else.
_SUPPORTED = {
    "AltCLIPEncoderLayer": _CLIP,
    "CLIPEncoderLayer": _CLIP,
    "ChineseCLIPVisionLayer": _CLIP,
    "MetaClip2EncoderLayer": _CLIP,
    "Siglip2EncoderLayer": _CLIP,
    "SiglipEncoderLayer": _CLIP,
    "ViTLayer": _VIT,
}
# In products of up to three rows, the memory layout of the weights decides the order of sums: a model that
# was saved and loaded would differ in the last digit. So few rows are fast in any case.
_MIN_ROWS = 4


def compute_only_at(tower: nn.Module, position: TokenPosition | None) -> AbstractContextManager[None]:
    """Inside, the last layer runs at one position, and its output there is repeated at all positions.

    Without effect where that would not give the same numbers: for an unsupported layer, one with dropout,
    hooks or another attention implementation; nor without a position.
    """
    _, stack = layers.layer_stack(tower)
    if position is None or not _applies(stack[-1]):
        return nullcontext()
    return frozen_prefix.with_layers(tower, [*stack[:-1], _SingleTokenLayer(stack[-1], position)])


def end_of_text(ids: Tensor, end: int | None) -> Tensor:
    """(b,) the first position of the end-of-text id in (b, t); of the highest id when None."""
    scores = ids if end is None else (ids == end).int()
    return scores.argmax(dim=-1)


def _applies(layer: Any) -> bool:
    names = _SUPPORTED.get(type(layer).__name__)
    if names is None:
        return False
    attention = getattr(layer, names.attention)
    hooks = [
        getattr(module, f"_forward{kind}_hooks") for module in (layer, attention) for kind in ("", "_pre")
    ]
    draws = getattr(attention, names.dropout) > 0 or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in layer.children()
    )
    return (
        attention.config._attn_implementation == "sdpa" and not any(hooks) and not (layer.training and draws)
    )


class _SingleTokenLayer(nn.Module):
    """Replaces a layer."""

    def __init__(self, layer: Any, position: TokenPosition) -> None:
        super().__init__()
        self.layer, self.position, self.names = layer, position, _SUPPORTED[type(layer).__name__]

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """(b, t, w) from (b, t, w); the result is one row, expanded without memory for t of them."""
        if len(hidden) < _MIN_ROWS:
            output: Tensor = self.layer(hidden, attention_mask, **options)
            return output
        mask = self._mask(hidden, attention_mask, bool(options.get("is_causal")))
        row = partial(self._row, mask=mask)
        if self.layer.gradient_checkpointing and self.layer.training:
            row = partial(self.layer._gradient_checkpointing_func, row)
        return row(hidden).expand(-1, hidden.shape[1], -1)

    def _row(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(b, 1, w): the forward pass of the layer, with one query."""
        layer, names = self.layer, self.names
        attention = getattr(layer, names.attention)
        normed = getattr(layer, names.norm)(hidden)
        query, key, value = (
            rows.view(*rows.shape[:2], -1, attention.head_dim).transpose(1, 2)
            for rows in (
                attention.q_proj(self._at(normed)),
                attention.k_proj(normed),
                attention.v_proj(normed),
            )
        )
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        row = self._at(hidden) + getattr(attention, names.out)(context.transpose(1, 2).flatten(2))
        result: Tensor = row + layer.mlp(getattr(layer, names.norm2)(row))
        return result

    def _at(self, rows: Tensor) -> Tensor:
        """(b, 1, …) of (b, t, …)."""
        if isinstance(self.position, int):
            return rows[:, self.position, None]
        return rows[torch.arange(len(rows), device=rows.device), self.position][:, None]

    def _mask(self, hidden: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
        """The row of the one query in the layer's mask (b, 1, t, t), if there is any."""
        if mask is not None:
            rows = mask.expand(len(hidden), -1, -1, -1).transpose(1, 2)
            return self._at(rows).transpose(1, 2)
        if not causal:
            return None
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        query = self._at(positions.expand(len(hidden), -1))
        return (positions <= query)[:, None, None]
