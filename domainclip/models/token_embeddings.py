"""Embeddings of single patches and tokens, in the space that images and texts share.

The trained embedding is one vector an image and one a text. Objectives that align the two more finely
[FILIP, arXiv:2111.07783] need a vector for every token: its last hidden state is pooled and projected as if
it were the only token.

Shapes: b items, t tokens or patches, n patches, l tokens of a text, w the tower's width, d embedding width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tokens in front of the patches: the class token, and others, behind which the first patch is uncertain.
_FRONT = re.compile(r"(class_embedding|cls_token|distillation_token|register_tokens)$")


class EncoderOutput(NamedTuple):
    """Outputs for a batch; None: without input, not requested, or not part of the model."""

    image: Tensor | None  # (b, d) unit length
    text: Tensor | None  # (b, d) unit length
    scale: Tensor  # () inverse temperature
    bias: Tensor | None  # () of families trained with the sigmoid objective
    image_tokens: Tensor | None = None  # (b, n, d) unit length, row by row from the top left
    text_tokens: Tensor | None = None  # (b, l, d) unit length
    text_mask: Tensor | None = None  # (b, l) bool: words, not special tokens or padding
    # Parameters of objectives, unchanged, as NAME.WEIGHT: their gradients take the same way.
    objective_weights: Mapping[str, Tensor] = MappingProxyType({})


def has_image_token_embeddings(vision_model: nn.Module) -> bool:
    """Whether every patch can take the place of the pooled token: only a class token is known in front."""
    return len(_front(vision_model)) in ((0, 1) if _has_pooling_head(vision_model) else (1,))


def image_token_embeddings(vision_model: nn.Module, projection: nn.Module | None, hidden: Tensor) -> Tensor:
    """(b, n, d) of unit length, from the image tower's last hidden states (b, t, w)."""
    patches = hidden[:, len(_front(vision_model)) :]
    return _projected(pool_single_tokens(vision_model, patches), projection)


def text_token_embeddings(text_model: nn.Module, projection: nn.Module | None, hidden: Tensor) -> Tensor:
    """(b, l, d) of unit length, from the text tower's last hidden states (b, l, w)."""
    return _projected(pool_single_tokens(text_model, hidden), projection)


def is_word_token(hf_tokenizer: Any, text: dict[str, Tensor]) -> Tensor:
    """(b, l) bool: neither padding nor added around a text by the tokenizer; unknown words are words."""
    ids = text["input_ids"]
    names = ("bos", "eos", "cls", "sep", "pad")
    added = {getattr(hf_tokenizer, f"{name}_token_id") for name in names} - {None}
    special = torch.tensor(sorted(added), device=ids.device)
    mask = ~torch.isin(ids, special)
    if "attention_mask" in text:
        return mask & text["attention_mask"].bool()
    before_end: Tensor = (ids == hf_tokenizer.eos_token_id).cumsum(dim=1) == 0
    return mask & before_end  # padding may be the id of a word


def pad_and_join(groups: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One (b, l, d) and (b, l) of several, each padded to the longest."""
    longest = max(mask.shape[1] for _, mask in groups)
    rows = [F.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens, _ in groups]
    masks = [F.pad(mask, (0, longest - mask.shape[1])) for _, mask in groups]
    return torch.cat(rows), torch.cat(masks)


def pool_single_tokens(tower: nn.Module, hidden: Tensor) -> Tensor:
    """(b, t, w) pooled, each token as if it were the only one; text towers have normalized them already."""
    for name in ("head", "pooler"):  # attention over one token is that token's value
        pool = getattr(tower, name, None)
        if isinstance(pool, nn.Module):
            pooled: Tensor = pool(hidden.reshape(-1, 1, hidden.shape[-1]))
            return pooled.reshape(*hidden.shape[:2], -1)
    norm = getattr(tower, "post_layernorm", None)
    return norm(hidden) if isinstance(norm, nn.Module) else hidden


def _front(vision_model: nn.Module) -> list[str]:
    """Names of the tokens in front of the patches."""
    return [name for name, _ in vision_model.named_parameters() if _FRONT.search(name)]


def _has_pooling_head(vision_model: nn.Module) -> bool:
    return isinstance(getattr(vision_model, "head", None), nn.Module)


def _projected(rows: Tensor, projection: nn.Module | None) -> Tensor:
    return F.normalize((rows if projection is None else projection(rows)).float(), dim=-1)
