"""Interpolated position embeddings of a text tower, for texts longer than it was trained on.

Shapes: n positions, w width of the tower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder


def stretch_table(table: Tensor, keep: int, factor: int) -> Tensor:
    """(keep + factor (n − keep), w): the first rows of (n, w), and the others `factor` times as far apart.

    The rows between those are interpolated linearly; behind the last one its last step is repeated.
    """
    rest = table[keep:]
    following = torch.cat([rest, 2 * table[-1:] - table[-2:-1]])[1:]
    shares = torch.arange(factor, dtype=table.dtype, device=table.device) / factor
    between = rest[:, None] + shares[:, None] * (following - rest)[:, None]
    return torch.cat([table[:keep], between.flatten(0, 1)])


class PositionTable(nn.Module):
    """Positions, the first of them frozen, the others trained: two weights, saved as one plain table."""

    def __init__(self, table: Tensor, frozen: int, padding_idx: int | None) -> None:
        super().__init__()
        self.first = nn.Parameter(table[:frozen].clone())
        self.rest = nn.Parameter(table[frozen:].clone())
        self.padding_idx = padding_idx

    @property
    def weight(self) -> Tensor:
        """(n, w), both."""
        return torch.cat([self.first, self.rest])

    def forward(self, ids: Tensor) -> Tensor:
        """(…, w) of positions (…)."""
        return nn.functional.embedding(ids, self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight.detach()


def stretch(model: DualEncoder, keep: int, factor: int) -> str:
    """Replace the table of positions by a longer one, and adapt model, config and tokenizer to its length.

    Returns the name of the weight that holds the first `keep` positions, which are unchanged.

    Raises: ModelError for a text tower without a table of positions.
    """
    holder, name = find_position_table(model)
    old: nn.Embedding = getattr(holder, name)
    offset = _offset(old)
    table = stretch_table(old.weight.detach(), offset + keep, factor)
    new = PositionTable(table, offset + keep, old.padding_idx)
    setattr(holder, name, new)
    _fit_buffers(holder, old.num_embeddings, len(table))
    for config in (model.hf_base.config.text_config, getattr(model.hf_base.text_model, "config", None)):
        if config is not None:
            config.max_position_embeddings = len(table)
    model.text_tokenizer.hf_tokenizer.model_max_length = len(table) - offset
    model.text_tokenizer.refresh(len(table) - offset)
    return next(name for name, weight in model.weights().items() if weight is new.first)


def find_position_table(model: DualEncoder) -> tuple[nn.Module, str]:
    """The module that holds the table of positions, and the table's name there.

    Raises: ModelError for a text tower without one.
    """
    for name, module in model.hf_base.text_model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if leaf in ("position_embedding", "position_embeddings") and isinstance(module, nn.Embedding):
            return model.hf_base.text_model.get_submodule(parent), leaf
    model.refuse(f"the text tower of family {model.family} has no table of positions")


def count_positions(model: DualEncoder) -> int:
    """Number of positions of the text tower, whatever the limit of its tokenizer."""
    table: nn.Embedding = getattr(*find_position_table(model))
    return table.num_embeddings - _offset(table)


def _offset(table: nn.Embedding) -> int:
    # Rows below the first position: RoBERTa and its descendants count from behind the padding index.
    return 0 if table.padding_idx is None else table.padding_idx + 1


def _fit_buffers(holder: nn.Module, old: int, new: int) -> None:
    """Lengthen the buffers that have an entry for each position: position ids, and token types of 0."""
    for name, buffer in list(holder.named_buffers(recurse=False)):
        if buffer.shape[-1] != old:
            continue
        longer = torch.arange(new, device=buffer.device) if name == "position_ids" else buffer.new_zeros(new)
        holder.register_buffer(name, longer.to(buffer.dtype).expand(1, -1), persistent=False)
