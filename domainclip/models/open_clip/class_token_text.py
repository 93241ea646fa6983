"""A causal text tower with a class token behind the text, which is pooled: that of CoCa [arXiv:2205.01917].

Shapes: b texts, l token ids, t = l + 1 or l + 2 positions, w width of the tower.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPTextModel


class ClassTokenText(CLIPTextModel):
    """The class token has the last position of the context, however short the text is.

    Its mask is that of open_clip, which stands one position too far right, as the published weights were
    trained with (`correct_cls_mask` is off): the class token reads the text and the first padding behind it,
    and itself only where the text fills the context. Further padding changes nothing, and is left out.
    """

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__(config)
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size))  # with its position

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """(b, l, w) hidden states and (b, w) pooled rows of (b, l) ids, whatever these are padded with."""
        ids = self._padded(input_ids)
        words = self.embeddings(input_ids=ids)
        token = self.class_embedding.to(words.dtype).expand(len(ids), 1, -1)
        hidden = self.encoder(
            inputs_embeds=torch.cat([words, token], dim=1), attention_mask=self._mask(ids, words.dtype)
        ).last_hidden_state
        rows = self.final_layer_norm(hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=rows[:, : input_ids.shape[1]], pooler_output=rows[:, -1]
        )

    def _padded(self, ids: Tensor) -> Tensor:
        """The ids with the padding that the tower was trained with, of one token more where there is room."""
        room = min(1, self.config.max_position_embeddings - ids.shape[1])
        ids = F.pad(ids, (0, room), value=self.config.pad_token_id)
        is_end = (ids == self.config.eos_token_id).long()
        return ids.masked_fill(is_end.cumsum(dim=1) - is_end > 0, self.config.pad_token_id)

    def _mask(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """(b, 1, t, t), 0 where a position reads another one, −∞ elsewhere."""
        readable = F.pad(ids != self.config.pad_token_id, (1, 0), value=True)
        before = torch.ones(readable.shape[1], readable.shape[1], dtype=torch.bool, device=ids.device).tril()
        reads = readable[:, None, None] & before
        return torch.zeros(reads.shape, dtype=dtype, device=ids.device).masked_fill(~reads, -torch.inf)
