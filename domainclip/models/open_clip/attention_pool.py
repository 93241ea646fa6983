"""Image towers that one learned query pools: those of CoCa [arXiv:2205.01917] and CONCH [arXiv:2307.12914].

Shapes: b images, t tokens, w width of the tower, d width of the pooled rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, ViTConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.vit.modeling_vit import ViTModel


class PooledClipConfig(CLIPVisionConfig):
    """open_clip's ViT, and the attention behind it."""

    model_type = "clip_vision_attention_pool"
    pooled_width: int = 512
    pooling_heads: int = 8
    pooling_eps: float = 1e-5


class PooledVitConfig(ViTConfig):
    """timm's ViT, and the attention behind it."""

    model_type = "vit_attention_pool"
    pooled_width: int = 512
    pooling_heads: int = 8
    pooling_eps: float = 1e-5


class AttentionPool(nn.Module):
    """(b, t, w) hidden states to (b, d): what one learned query reads in them, normalized.

    A checkpoint has further queries, whose rows only its caption decoder reads: they are left out.
    """

    def __init__(self, config: PooledClipConfig | PooledVitConfig) -> None:
        super().__init__()
        width, out, eps = config.hidden_size, config.pooled_width, config.pooling_eps
        self.heads = config.pooling_heads
        self.query = nn.Parameter(torch.zeros(1, out))
        self.query_norm = nn.LayerNorm(out, eps)
        self.key_norm = nn.LayerNorm(width, eps)
        self.q_proj = nn.Linear(out, out)
        self.k_proj = nn.Linear(width, out)
        self.v_proj = nn.Linear(width, out)
        self.out_proj = nn.Linear(out, out)
        self.norm = nn.LayerNorm(out, eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(b, d) from (b, t, w)."""
        rows = self.key_norm(hidden)
        query = self.q_proj(self.query_norm(self.query)).expand(len(rows), 1, -1)
        by_head = [
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (query, self.k_proj(rows), self.v_proj(rows))
        ]
        context = F.scaled_dot_product_attention(*by_head)
        pooled: Tensor = self.norm(self.out_proj(context.transpose(1, 2).flatten(2)[:, 0]))
        return pooled


class PooledClip(CLIPVisionModel):
    """open_clip's ViT: the query reads the last layer's output, which has no norm of its own."""

    def __init__(self, config: PooledClipConfig) -> None:
        super().__init__(config)
        self.post_layernorm = nn.Identity()
        self.head = AttentionPool(config)

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """(b, t, w) hidden states and (b, d) pooled rows."""
        return _pooled(super().forward(pixel_values, **options), self.head)


class PooledVit(ViTModel):
    """timm's ViT: the query reads the last layer's output behind its norm."""

    def __init__(self, config: PooledVitConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        self.head = AttentionPool(config)

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """(b, t, w) hidden states and (b, d) pooled rows."""
        return _pooled(super().forward(pixel_values, **options), self.head)


def _pooled(out: Any, pool: AttentionPool) -> BaseModelOutputWithPooling:
    hidden = out.last_hidden_state
    return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pool(hidden))
