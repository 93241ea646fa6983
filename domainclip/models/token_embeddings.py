"""What each patch and each word says, in the space that images and texts share.

The trained embedding is one vector a picture and one a text. Objectives that align the two finer than that
[FILIP, arXiv:2111.07783] want a vector for every token: its last hidden state goes where the pooled one goes,
as if it were the only token.

Shapes: b items, t tokens or patches, n patches, l tokens of a text, w the tower's width, d embedding width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from domainclip.models.encoding import Encoding
    from domainclip.models.layers import Modality

# Tokens that stand before the patches. One is the class token; with more, patches begin nobody says where.
_FRONT = re.compile(r"(class_embedding|cls_token|distillation_token|register_tokens)$")


class EncoderOutput(NamedTuple):
    """What the towers say of a batch; None: not given, not asked for, or not there."""

    image: Tensor | None  # (b, d) unit length
    text: Tensor | None  # (b, d) unit length
    scale: Tensor  # () inverse temperature
    bias: Tensor | None  # () of families trained with the sigmoid objective
    image_tokens: Tensor | None = None  # (b, n, d) unit length, row by row from the top left
    text_tokens: Tensor | None = None  # (b, l, d) unit length
    text_mask: Tensor | None = None  # (b, l) bool: words, not special tokens or padding
    heads: Tensor | None = None  # as they are, when an objective has some: so their gradients go the same way


def has_token_embeddings(model: Encoding, part: Modality) -> bool:
    """Whether every token of this tower can go where its pooled one goes."""
    if part == "text":
        return True
    vision: Any = model.hf_base.vision_model
    front = [name for name, _ in vision.named_parameters() if _FRONT.search(name)]
    pools_all = isinstance(getattr(vision, "head", None), nn.Module)
    # Studies of several images have no single grid.
    one_grid = not model.image_preprocessor.patch and model.frames == 1
    return one_grid and len(front) == (0 if pools_all else 1)


def image_token_embeddings(model: Encoding, hidden: Tensor) -> Tensor:
    """(b, n, d) of unit length, from the image tower's last hidden states (b, t, w)."""
    vision: Any = model.hf_base.vision_model
    pools_all = isinstance(getattr(vision, "head", None), nn.Module)
    rows = pool_single_tokens(
        vision, hidden if pools_all else hidden[:, 1:]
    )  # all others have a class token in front
    return _projected(rows, getattr(model.hf_base, "visual_projection", None))


def text_token_embeddings(model: Encoding, hidden: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(b, l, d) of unit length and (b, l) which of them are words, from the last hidden states (b, l, w)."""
    rows = pool_single_tokens(model.hf_base.text_model, hidden)
    mask = is_word_token(model.tokenizer, text)
    return _projected(rows, getattr(model.hf_base, "text_projection", None)), mask


def is_word_token(tokenizer: Any, text: dict[str, Tensor]) -> Tensor:
    """(b, l) bool: neither padding nor what a tokenizer puts around a text; unknown words are words."""
    ids = text["input_ids"]
    names = ("bos", "eos", "cls", "sep", "pad")
    around = {getattr(tokenizer, f"{name}_token_id") for name in names} - {None}
    special = torch.tensor(sorted(around), device=ids.device)
    found = ~torch.isin(ids, special)
    return found & text["attention_mask"].bool() if "attention_mask" in text else found


def pad_and_join(groups: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Groups of texts (b, l, d) and (b, l) as one, each filled up to the longest."""
    longest = max(mask.shape[1] for _, mask in groups)
    rows = [F.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens, _ in groups]
    masks = [F.pad(mask, (0, longest - mask.shape[1])) for _, mask in groups]
    return torch.cat(rows), torch.cat(masks)


def pool_single_tokens(tower: Any, rows: Tensor) -> Tensor:
    """(b, t, w) pooled, each token as if it were the only one; a text tower has normalised them already."""
    for name in ("head", "pooler"):  # attention over one token is that token's value
        pool = getattr(tower, name, None)
        if isinstance(pool, nn.Module):
            pooled: Tensor = pool(rows.reshape(-1, 1, rows.shape[-1]))
            return pooled.reshape(*rows.shape[:2], -1)
    norm = getattr(tower, "post_layernorm", None)
    return norm(rows) if isinstance(norm, nn.Module) else rows


def _projected(rows: Tensor, projection: Any) -> Tensor:
    return F.normalize((rows if projection is None else projection(rows)).float(), dim=-1)
