"""Tokens that a text tower learns: put in front of its texts, or in place of class names.

The tokenizer knows them and inserts them, and the saved embedding table is one plain table, so that a model
with learned tokens is a plain model with a larger vocabulary.

Shapes: v tokens of the base, k new ones, w width of the tower, l tokens of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.learned_prompts import LEARNED_TOKENS


class WidenedEmbedding(nn.Module):
    """A frozen table of tokens (v, w), and k trainable ones from the id `first` on."""

    def __init__(self, table: nn.Embedding, added: Tensor, first: int) -> None:
        super().__init__()
        self.weight = table.weight
        self.added_tokens = nn.Parameter(added)
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """(…, w) of ids (…)."""
        index = ids - self.first
        new = (index >= 0) & (index < len(self.added_tokens))
        base = nn.functional.embedding(ids.masked_fill(new, 0), self.weight)
        added = nn.functional.embedding(index.masked_fill(~new, 0), self.added_tokens)
        return torch.where(new[..., None], added, base)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # As the plain table that transformers expects.
        missing = self.first + len(self.added_tokens) - len(self.weight)
        padding = self.weight.new_zeros(max(0, missing), self.weight.shape[1])
        table = torch.cat([self.weight.detach(), padding])
        table[self.first : self.first + len(self.added_tokens)] = self.added_tokens.detach()
        destination[prefix + "weight"] = table


def widen_token_embeddings(
    model: DualEncoder, tokens: Sequence[AddedToken], added: Tensor, usage: dict[str, dict[str, str]]
) -> str:
    """Add tokens with vectors (k, w) to tokenizer and text tower; the name of the new trainable weight.

    `usage` states where they are inserted; see `learned_prompts`.

    Raises: ModelError when the tokenizer has one of the tokens already.
    """
    text, hf_tokenizer = model.hf_base.text_model, model.text_tokenizer.hf_tokenizer
    first = len(hf_tokenizer)
    if any(str(token) in hf_tokenizer.get_vocab() for token in tokens):
        model.refuse("its tokenizer has some of the new tokens already: it has learned tokens before")
    hf_tokenizer.add_tokens(list(tokens))
    table = text.get_input_embeddings()
    name = next(name for name, module in text.named_modules() if module is table)
    text.set_submodule(name, WidenedEmbedding(table, added, first))
    rows = max(len(table.weight), first + len(tokens))
    for config in (model.hf_base.config.text_config, getattr(text, "config", None)):
        if config is not None:
            config.vocab_size = rows
    _pool_at_end_of_text(model)
    hf_tokenizer.init_kwargs[LEARNED_TOKENS] = usage
    model.text_tokenizer.refresh()
    return f"text/text_model.{name}.added_tokens"


def token_vectors(model: DualEncoder, text: str) -> Tensor:
    """(l, w): the embeddings of a text's tokens, without special ones."""
    tokenizer = model.text_tokenizer
    ids = tokenizer.hf_tokenizer(tokenizer.normalize([text])[0], add_special_tokens=False)["input_ids"]
    table: Tensor = model.hf_base.text_model.get_input_embeddings().weight.detach()
    return table[torch.tensor(ids, dtype=torch.long, device=table.device)]


def _pool_at_end_of_text(model: DualEncoder) -> None:
    # The first converted CLIPs are pooled at the highest id, which was the end of the text and is now a word.
    text = model.hf_base.text_model
    if model.family == "clip" and text.eos_token_id == 2:
        end = model.text_tokenizer.hf_tokenizer.eos_token_id
        text.eos_token_id = model.hf_base.config.text_config.eos_token_id = end
