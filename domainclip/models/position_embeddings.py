"""The positions of a text tower, stretched: it reads further than it was trained to.

Legend: n positions, w width of the tower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


def stretch_table(table: Tensor, keep: int, factor: int) -> Tensor:
    """(keep + factor (n − keep), w): the first rows of (n, w) as they are, the others `factor` times as far
    apart, with what lies between them on a straight line; behind the last one its last step goes on.
    """
    rest = table[keep:]
    following = torch.cat([rest, 2 * table[-1:] - table[-2:-1]])[1:]
    shares = torch.arange(factor, dtype=table.dtype, device=table.device) / factor
    between = rest[:, None] + shares[:, None] * (following - rest)[:, None]
    return torch.cat([table[:keep], between.flatten(0, 1)])


class PositionTable(nn.Module):
    """Positions of which the first are locked and the others learn: two weights, saved as one plain table."""

    def __init__(self, table: Tensor, locked: int, padding_idx: int | None) -> None:
        super().__init__()
        self.first = nn.Parameter(table[:locked].clone())
        self.rest = nn.Parameter(table[locked:].clone())
        self.padding_idx = padding_idx

    @property
    def weight(self) -> Tensor:
        """(n, w), both."""
        return torch.cat([self.first, self.rest])

    def forward(self, ids: Tensor) -> Tensor:
        """(…, w) of places (…)."""
        return nn.functional.embedding(ids, self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight.detach()


def stretch(model: DualEncoder, keep: int, factor: int) -> str:
    """Puts the longer table in place, with what model, config and tokenizer say of its length.

    Gives the name of the weight that holds the first `keep` positions, which are as they were.
    """
    holder, name = find_position_tables(model)
    old: nn.Embedding = getattr(holder, name)
    before = _offset(old)  # rows below the first position
    table = stretch_table(old.weight.detach(), before + keep, factor)
    new = PositionTable(table, before + keep, old.padding_idx)
    setattr(holder, name, new)
    _fit_buffers(holder, old.num_embeddings, len(table))
    for config in (model.hf_base.config.text_config, getattr(model.hf_base.text_model, "config", None)):
        if config is not None:
            config.max_position_embeddings = len(table)
    model.tokenizer.model_max_length = len(table) - before
    model.reword()
    return next(one for one, weight in model.weights().items() if weight is new.first)


def find_position_tables(model: DualEncoder) -> tuple[nn.Module, str]:
    """The module that holds the table of positions, and what the table is called there."""
    for name, module in model.hf_base.text_model.named_modules():
        parent, _, own = name.rpartition(".")
        if own in ("position_embedding", "position_embeddings") and isinstance(module, nn.Embedding):
            return model.hf_base.text_model.get_submodule(parent), own
    model.refuse(f"the text tower of family {model.family} has no table of positions")


def count_positions(model: DualEncoder) -> int:
    """How many positions the text tower has, whatever its tokenizer makes of them."""
    table: nn.Embedding = getattr(*find_position_tables(model))
    return table.num_embeddings - _offset(table)


def _offset(table: nn.Embedding) -> int:
    # RoBERTa and its kin count positions from behind the padding index.
    return 0 if table.padding_idx is None else table.padding_idx + 1


def _fit_buffers(holder: nn.Module, old: int, new: int) -> None:
    """What the module made in advance for each position: their numbers, and zeros for the kind of token."""
    for name, buffer in list(holder.named_buffers(recurse=False)):
        if buffer.shape[-1] != old:
            continue
        longer = torch.arange(new, device=buffer.device) if name == "position_ids" else buffer.new_zeros(new)
        holder.register_buffer(name, longer.to(buffer.dtype).expand(1, -1), persistent=False)
