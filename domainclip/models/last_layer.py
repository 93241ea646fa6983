"""The last layer only where it is read.

An embedding is made of one token: the class token of a picture, the end of a text. Of the others the last
layer needs keys and values alone; their queries, output projection and MLP, 10/12 of its arithmetic, would be
thrown away. Exact, gradients included: no number that is left out has a path to the embedding.

Legend: b items, t tokens or patches, w width of the tower.
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
    """What a layer calls its pieces."""

    norm: str
    attention: str
    out: str
    dropout: str
    norm2: str


_CLIP = _Names("layer_norm1", "self_attn", "out_proj", "dropout", "layer_norm2")
_VIT = _Names("layernorm_before", "attention", "o_proj", "attention_dropout", "layernorm_after")
# By name, so that nothing is imported for it, and a subclass, which may do otherwise, is not meant.
_KNOWN = {
    "AltCLIPEncoderLayer": _CLIP,
    "CLIPEncoderLayer": _CLIP,
    "ChineseCLIPVisionLayer": _CLIP,
    "MetaClip2EncoderLayer": _CLIP,
    "Siglip2EncoderLayer": _CLIP,
    "SiglipEncoderLayer": _CLIP,
    "ViTLayer": _VIT,
}
# In products of up to three rows, where weights lie in memory decides how sums are ordered: a model saved and
# loaded would say something else in the last digit. So few are quick in any way.
_FEWEST = 4


def compute_only_at(tower: nn.Module, place: TokenPosition | None) -> AbstractContextManager[None]:
    """Inside, the last layer is run at one place, and what stands there stands everywhere in its output.

    Nothing changes where that would not give the plain numbers: for a layer that is not known, one that draws
    dropout, one with hooks or another attention; nor without a place.
    """
    _, stack = layers.layer_stack(tower)
    if place is None or not _applies(stack[-1]):
        return nullcontext()
    return frozen_prefix.with_layers(tower, [*stack[:-1], _SingleTokenLayer(stack[-1], place)])


def end_of_text(ids: Tensor, end: int | None) -> Tensor:
    """(b,) the first place of the end-of-text id in (b, t); of the highest id when None."""
    found = ids if end is None else (ids == end).int()
    return found.argmax(dim=-1)


def _applies(layer: Any) -> bool:
    names = _KNOWN.get(type(layer).__name__)
    if names is None:
        return False
    attention = getattr(layer, names.attention)
    hooks = [getattr(one, f"_forward{kind}_hooks") for one in (layer, attention) for kind in ("", "_pre")]
    draws = getattr(attention, names.dropout) > 0 or any(
        isinstance(one, nn.Dropout) and one.p > 0 for one in layer.children()
    )
    return (
        attention.config._attn_implementation == "sdpa" and not any(hooks) and not (layer.training and draws)
    )


class _SingleTokenLayer(nn.Module):
    """Stands in for a layer."""

    def __init__(self, layer: Any, place: TokenPosition) -> None:
        super().__init__()
        self.layer, self.place, self.names = layer, place, _KNOWN[type(layer).__name__]

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """(b, t, w) from (b, t, w); takes no memory t times."""
        if len(hidden) < _FEWEST:
            whole: Tensor = self.layer(hidden, attention_mask, **options)
            return whole
        mask = self._mask(hidden, attention_mask, bool(options.get("is_causal")))
        row = partial(self._row, mask=mask)
        if self.layer.gradient_checkpointing and self.layer.training:
            row = partial(self.layer._gradient_checkpointing_func, row)
        return row(hidden).expand(-1, hidden.shape[1], -1)

    def _row(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(b, 1, w): the layer's own forward, with one query."""
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
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        row = self._at(hidden) + getattr(attention, names.out)(found.transpose(1, 2).flatten(2))
        result: Tensor = row + layer.mlp(getattr(layer, names.norm2)(row))
        return result

    def _at(self, rows: Tensor) -> Tensor:
        """(b, 1, …) of (b, t, …)."""
        if isinstance(self.place, int):
            return rows[:, self.place, None]
        return rows[torch.arange(len(rows), device=rows.device), self.place][:, None]

    def _mask(self, hidden: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
        """What the one query may look at, of the layer's mask (b, 1, t, t), if there is any."""
        if mask is not None:
            rows = mask.expand(len(hidden), -1, -1, -1).transpose(1, 2)
            return self._at(rows).transpose(1, 2)
        if not causal:
            return None
        places = torch.arange(hidden.shape[1], device=hidden.device)
        own = self._at(places.expand(len(hidden), -1))
        return (places <= own)[:, None, None]
