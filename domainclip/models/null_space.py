"""What general texts give to the layers of a text tower, and the directions that they leave free.

Legend: t texts, n rows of a layer's input, d its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder

_BATCH = 64  # texts at once


@torch.no_grad()
def input_roots(model: DualEncoder, layers: Sequence[nn.Module], texts: Sequence[str]) -> list[Tensor]:
    """For each layer of the text tower a (d, d) matrix R with RᵀR = Σ x xᵀ over its inputs for the texts.

    So the right singular vectors of R are the directions of the inputs, in the order of their energy. A layer
    that is not run has R = 0.
    """
    sums: dict[nn.Module, Tensor] = {}

    def add(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].flatten(0, -2).double()  # (n, d)
        sums[layer] = sums.get(layer, torch.zeros((), dtype=rows.dtype, device=rows.device)) + rows.T @ rows

    was_training = model.training
    model.eval()
    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(add).remove)
        for start in range(0, len(texts), _BATCH):
            model.encode_text_unnormalized(_to_device(model, list(texts[start : start + _BATCH])))
    model.train(was_training)
    return [_root(sums.get(layer)) for layer in layers]


def _root(total: Tensor | None) -> Tensor:
    if total is None:
        return torch.zeros(1, 1)
    energies, axes = torch.linalg.eigh(total)
    root: Tensor = energies.clamp_min(0).sqrt()[:, None] * axes.T
    return root.float()


def _to_device(model: DualEncoder, texts: list[str]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in model.text_tokenizer(texts).items()}
