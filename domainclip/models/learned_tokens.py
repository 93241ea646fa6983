"""Words that a text tower learns: new tokens, put before its texts or standing for the name of a class.

The tokenizer knows them and says when they are used, and the saved table of tokens is one plain table, so
that a model that has learnt some is a plain model with a larger vocabulary.

Legend: v tokens of the base, k new ones, w width of the tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from domainclip.models.learned_prompts import LEARNED_TOKENS

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


class WidenedEmbedding(nn.Module):
    """A locked table of tokens (v, w) and k more, which learn, from the id `first` on."""

    def __init__(self, table: nn.Embedding, added: Tensor, first: int) -> None:
        super().__init__()
        self.weight = table.weight
        self.added_tokens = nn.Parameter(added)
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """(…, w) of ids (…)."""
        place = ids - self.first
        new = (place >= 0) & (place < len(self.added_tokens))
        known = nn.functional.embedding(ids.masked_fill(new, 0), self.weight)
        return torch.where(
            new[..., None], nn.functional.embedding(place.masked_fill(~new, 0), self.added_tokens), known
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # As the plain table that another library knows.
        more = self.first + len(self.added_tokens) - len(self.weight)
        whole = torch.cat([self.weight.detach(), self.weight.new_zeros(max(0, more), self.weight.shape[1])])
        whole[self.first : self.first + len(self.added_tokens)] = self.added_tokens.detach()
        destination[prefix + "weight"] = whole


def widen_token_embeddings(
    model: DualEncoder, tokens: Sequence[AddedToken], added: Tensor, said: dict[str, dict[str, str]]
) -> str:
    """Makes tokenizer and text tower know new tokens, with vectors (k, w); the name of what learns.

    `said` is how they are used; see `WORDS`.
    """
    text, first = model.hf_base.text_model, len(model.tokenizer)
    if any(str(token) in model.tokenizer.get_vocab() for token in tokens):
        model.refuse("its tokenizer knows some of the new tokens already: it has learnt words before")
    model.tokenizer.add_tokens(list(tokens))
    table = text.get_input_embeddings()
    name = next(name for name, module in text.named_modules() if module is table)
    text.set_submodule(name, WidenedEmbedding(table, added, first))
    rows = max(len(table.weight), first + len(tokens))
    for config in (model.hf_base.config.text_config, getattr(text, "config", None)):
        if config is not None:
            config.vocab_size = rows
    _read_at_the_end(model)
    model.tokenizer.init_kwargs[LEARNED_TOKENS] = said
    model.reword()
    return f"text/text_model.{name}.added_tokens"


def token_vectors(model: DualEncoder, text: str) -> Tensor:
    """(l, w) of the tokens of a text, special ones left out."""
    ids = model.tokenizer(model.clean([text])[0], add_special_tokens=False)["input_ids"]
    table: Tensor = model.hf_base.text_model.get_input_embeddings().weight.detach()
    return table[torch.tensor(ids, dtype=torch.long, device=table.device)]


def _read_at_the_end(model: DualEncoder) -> None:
    # The first converted CLIPs are read at the highest id, which was the end of the text and is now a word.
    text = model.hf_base.text_model
    if model.family == "clip" and text.eos_token_id == 2:
        text.eos_token_id = model.hf_base.config.text_config.eos_token_id = model.tokenizer.eos_token_id
