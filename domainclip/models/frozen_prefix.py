"""The frozen layers below a tower's lowest trained layer, whose outputs are the same in every epoch.

No family is named here: the stack of layers is cut short, or starts from cached hidden states, and the rest
of the model runs as always, with its masks, pooling and projection.

Shapes: b items, t tokens or patches, w width of the tower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from domainclip.models import layers


def first_trainable_layer(tower: nn.Module) -> int | None:
    """Index of the lowest layer that is trained; None when nothing is.

    0 also when a weight below the layers is trained, the last layer when only weights above it are.
    """
    indices = [index for _, weight, index in _layer_indices(tower) if weight.requires_grad]
    return None if not indices else min(max(0, min(indices)), layers.depth(tower) - 1)


def parameters_below(tower: nn.Module, first: int) -> list[str]:
    """Names of the weights below a layer."""
    return [name for name, _, index in _layer_indices(tower) if index < first]


def relative_depths(tower: nn.Module) -> dict[str, float]:
    """By name, where a weight's layer lies: 0 is the first one, 1 the last; none outside the layers."""
    count = layers.depth(tower)
    last = max(1, count - 1)
    inside = [(name, index) for name, _, index in _layer_indices(tower) if 0 <= index < count]
    return {name: 1.0 if count == 1 else index / last for name, index in inside}


def frozen_modules(tower: nn.Module, first: int) -> list[nn.Module]:
    """The modules before a layer that can draw dropout: embeddings and lower layers; for layer 0, none."""
    _, stack = layers.layer_stack(tower)
    return [*_embeddings(tower), *stack[:first]] if first else []


@contextmanager
def stop_before_layer(tower: nn.Module, first: int) -> Iterator[list[Tensor]]:
    """Inside, the tower stops before a layer and appends that layer's input (b, t, w) to the list.

    A call of the tower then raises `LayerReached`, to be caught inside the block.
    """
    reached: list[Tensor] = []
    _, stack = layers.layer_stack(tower)
    with with_layers(tower, [*stack[:first], _Stop(reached)]):
        yield reached


@contextmanager
def start_at_layer(tower: nn.Module, first: int, hidden: Tensor, skip_embeddings: bool) -> Iterator[None]:
    """Inside, the tower starts at a layer with (b, t, w), whatever its arguments are.

    `skip_embeddings`: an image tower skips its embeddings too, for there are no pixels. A text tower needs
    its own, since masks are made of token ids; looking ids up costs nothing.
    """
    _, stack = layers.layer_stack(tower)
    skipped = _embeddings(tower) if skip_embeddings else []
    with with_layers(tower, [_FixedInput(hidden), *stack[first:]]):
        for module in skipped:  # in place, because some models read their embeddings' weights
            module.forward = lambda *_, **__: hidden
        try:
            yield
        finally:
            for module in skipped:
                del module.forward


class LayerReached(Exception):
    """The tower reached the layer before which it stops."""


class _Stop(nn.Module):
    def __init__(self, reached: list[Tensor]) -> None:
        super().__init__()
        self.reached = reached

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        self.reached.append(hidden)
        raise LayerReached


class _FixedInput(nn.Module):
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.hidden


@contextmanager
def with_layers(tower: nn.Module, replacement: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the tower runs these layers instead of its own."""
    prefix, stack = layers.layer_stack(tower)
    is_timm = isinstance(stack, nn.Sequential)
    tower.set_submodule(prefix, nn.Sequential(*replacement) if is_timm else nn.ModuleList(replacement))
    try:
        yield
    finally:
        tower.set_submodule(prefix, stack)


def _embeddings(tower: nn.Module) -> list[nn.Module]:
    return [module for name, module in tower.named_modules() if name.split(".")[-1] == "embeddings"]


def _layer_indices(tower: nn.Module) -> list[tuple[str, nn.Parameter, int]]:
    """The weights in the order of their use, each with the index of its layer.

    -1 is below all layers, their number above them.
    """
    prefix, stack = layers.layer_stack(tower)
    indices, index = [], -1
    inside = f"{prefix}."
    for name, weight in tower.named_parameters():
        if name.startswith(inside):
            index = int(name[len(inside) :].split(".", 1)[0])
        elif index >= 0:
            index = len(stack)
        indices.append((name, weight, index))
    return indices
