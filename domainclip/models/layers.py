"""The two towers' layers, and the linear layers in them that low-rank adapters are attached to, by name.

Every supported tower is a stack of equal layers in one ModuleList. In a layer, the modules under a name with
"attention" or "attn" are attention; the other linear layers are the MLP. That one rule replaces a list of
names for each family.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from domainclip.errors import ModelError, RecipeError, did_you_mean

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")
TOWER_MODULES = {"image": "vision_model", "text": "text_model"}  # their names in transformers
KINDS = ("attention", "attention+mlp")
_OF_TIMM = ("trunk.stages", "trunk.blocks", "trunk.layers")


def embedding_width(config: Any) -> int:
    """The width of the embeddings of a dual encoder, by its config."""
    text = config.text_config
    return int(getattr(config, "projection_dim", None) or getattr(text, "projection_size", text.hidden_size))


def depth(tower: nn.Module) -> int:
    """Number of layers of the tower."""
    return len(layer_stack(tower)[1])


def lora_target_names(tower: nn.Module, kind: str, last_layers: int | None) -> list[str]:
    """Names, within the tower, of the linear layers of the last layers, in order.

    Raises: RecipeError for an unknown kind, and a number of layers that the tower does not have.
    """
    if kind not in KINDS:
        raise RecipeError(f'unknown kind of layers "{kind}": {did_you_mean(kind, KINDS)}')
    prefix, layers = layer_stack(tower)
    count = check_last_layers(tower, len(layers) if last_layers is None else last_layers)
    return [
        f"{prefix}.{i}.{name}"
        for i in range(len(layers) - count, len(layers))
        for name, module in layers[i].named_modules()
        if isinstance(module, nn.Linear) and (kind == "attention+mlp" or _is_attention(name))
    ]


def check_last_layers(tower: nn.Module, last_layers: int) -> int:
    """The number of last layers, if the tower has so many.

    Raises: RecipeError otherwise.
    """
    count = depth(tower)
    if not 0 < last_layers <= count:
        raise RecipeError(
            f"last_layers: {last_layers} is not between 1 and {count}, the layers of this tower"
        )
    return last_layers


def layer_stack(tower: nn.Module) -> tuple[str, Any]:
    """The name of the tower's layers within it, and the layers; in a tower of timm, its stages or blocks.

    Raises: ModelError for a tower that has neither.
    """
    for name, module in tower.named_modules():
        if name in _OF_TIMM or (isinstance(module, nn.ModuleList) and not name.startswith("trunk.")):
            return name, module
    raise ModelError(f"{type(tower).__name__} has no stack of layers to choose from")


def _is_attention(name: str) -> bool:
    return any(word in name for word in ("attention", "attn", "token_mixer"))
