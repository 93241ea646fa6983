"""A tower in two halves: what lies below the first layer that learns says the same in every epoch.

Nothing here knows a family: the stack of layers is cut short, or begun with what was kept, and the rest of
the model is left to run as it always does, masks, pooling and projection included.

Legend: b items, t tokens or patches, w width of the tower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from domainclip.models import layers


def first_trainable_layer(tower: nn.Module) -> int | None:
    """The lowest layer that learns, or the last layer when only what stands above it does; None: nothing.

    0 also when something below the layers learns.
    """
    lowest = [place for _, weight, place in _places(tower) if weight.requires_grad]
    return None if not lowest else min(max(0, min(lowest)), layers.depth(tower) - 1)


def parameters_below(tower: nn.Module, first: int) -> list[str]:
    """Names of the weights that stand below a layer."""
    return [name for name, _, place in _places(tower) if place < first]


def frozen_modules(tower: nn.Module, first: int) -> list[nn.Module]:
    """What runs before a layer and can draw dropout: embeddings and the layers below; of layer 0, nothing."""
    _, stack = layers.layer_stack(tower)
    return [*_embeddings(tower), *stack[:first]] if first else []


@contextmanager
def stop_before_layer(tower: nn.Module, first: int) -> Iterator[list[Tensor]]:
    """A tower that stops before a layer: (b, t, w) of what reached it is put into the list.

    Calling the tower, or whatever calls it, raises `Reached`, to be caught inside the block.
    """
    found: list[Tensor] = []
    _, stack = layers.layer_stack(tower)
    with with_layers(tower, [*stack[:first], _Stop(found)]):
        yield found


@contextmanager
def start_at_layer(tower: nn.Module, first: int, hidden: Tensor, pictures: bool) -> Iterator[None]:
    """A tower that begins at a layer with (b, t, w), whatever it is called with.

    `pictures`: the embeddings are left out too, for there are no pixels; texts keep theirs, since masks are
    made of token ids, and looking ids up costs nothing.
    """
    _, stack = layers.layer_stack(tower)
    skipped = _embeddings(tower) if pictures else []
    with with_layers(tower, [_FixedInput(hidden), *stack[first:]]):
        for module in skipped:  # in place, because some models look at their embeddings' weights
            module.forward = lambda *_, **__: hidden
        try:
            yield
        finally:
            for module in skipped:
                del module.forward


class LayerReached(Exception):
    """The layer before which a tower was to stop."""


class _Stop(nn.Module):
    def __init__(self, found: list[Tensor]) -> None:
        super().__init__()
        self.found = found

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        self.found.append(hidden)
        raise LayerReached


class _FixedInput(nn.Module):
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.hidden


@contextmanager
def with_layers(tower: nn.Module, wanted: Iterable[nn.Module]) -> Iterator[None]:
    """A tower with other layers in place of its own."""
    prefix, stack = layers.layer_stack(tower)
    tower.set_submodule(prefix, nn.ModuleList(wanted))
    try:
        yield
    finally:
        tower.set_submodule(prefix, stack)


def _embeddings(tower: nn.Module) -> list[nn.Module]:
    return [module for name, module in tower.named_modules() if name.split(".")[-1] == "embeddings"]


def _places(tower: nn.Module) -> list[tuple[str, nn.Parameter, int]]:
    """The weights in the order in which they are used, each with its layer: -1 below them all, and above them
    their number.
    """
    prefix, stack = layers.layer_stack(tower)
    places, here = [], -1
    inside = f"{prefix}."
    for name, weight in tower.named_parameters():
        if name.startswith(inside):
            here = int(name[len(inside) :].split(".", 1)[0])
        elif here >= 0:
            here = len(stack)
        places.append((name, weight, here))
    return places
