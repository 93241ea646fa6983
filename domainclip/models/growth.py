"""Larger towers that compute what the smaller ones did: new layers and neurons whose outputs begin at zero.

Shapes: w width of a tower, m neurons of an MLP.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.models import layers
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import Modality

# Families whose layers add to their input, x + f(norm(x)): f = 0 leaves x as it is.
SUPPORTED_FAMILIES = ("clip", "metaclip_2", "siglip")


def deepen(model: DualEncoder, modality: Modality, count: int, momentum: float) -> list[nn.Parameter]:
    """Insert, behind each of the last `count` layers, one that inherits its weights and adds nothing yet.

    Returns the weights of the new layers: momentum times those of the layer below plus (1 − momentum) times a
    random draw with their mean and standard deviation, and zero where they write the output of the layer.

    Raises: RecipeError for a number of layers that the tower does not have; ModelError for another family.
    """
    tower = _tower(model, modality)
    first = layers.depth(tower) - layers.check_last_layers(tower, count)
    prefix, stack = layers.layer_stack(tower)
    grown: list[nn.Module] = list(stack[:first])
    new = []
    for layer in stack[first:]:
        inherited = copy.deepcopy(layer)
        _inherit(inherited, momentum)
        _silence(inherited)
        new.append(inherited)
        grown += [layer, inherited]
    tower.set_submodule(prefix, nn.ModuleList(grown))
    for config in _configs(model, modality):
        config.num_hidden_layers = len(grown)
    return [weight for layer in new for weight in layer.parameters()]


def widen(model: DualEncoder, modality: Modality, factor: int, momentum: float) -> list[nn.Parameter]:
    """Give every MLP of a tower `factor` times its neurons; the new ones inherit theirs and add nothing yet.

    Returns the weights that hold old and new neurons.

    Raises: ModelError for another family.
    """
    mlps: list[Any] = [  # that of a pooling head has the same config
        module
        for module in _tower(model, modality).modules()
        if {"fc1", "fc2"} <= {name for name, _ in module.named_children()}
    ]
    for mlp in mlps:
        mlp.fc1, mlp.fc2 = _more_neurons(mlp.fc1, factor, momentum), _more_inputs(mlp.fc2, factor)
    for config in _configs(model, modality):
        config.intermediate_size *= factor
    return [weight for mlp in mlps for weight in mlp.parameters()]


def _tower(model: DualEncoder, modality: Modality) -> nn.Module:
    if model.family not in SUPPORTED_FAMILIES:
        model.refuse(
            f"family {model.family} cannot grow without changing what it computes: take a base of "
            f"{', '.join(SUPPORTED_FAMILIES)}"
        )
    return model.tower(modality)


def _configs(model: DualEncoder, modality: Modality) -> list[Any]:
    """The configs of a tower, each once: that of the model, and the tower's."""
    whole = model.hf_base.config
    own = whole.vision_config if modality == "image" else whole.text_config
    found = {id(config): config for config in (own, getattr(model.tower(modality), "config", own))}
    return list(found.values())


@torch.no_grad()
def _inherit(layer: nn.Module, momentum: float) -> None:
    for weight in layer.parameters():
        weight.copy_(_mixed(weight, momentum))


def _mixed(weight: Tensor, momentum: float) -> Tensor:
    if momentum == 1 or weight.numel() < 2:
        return weight
    drawn = weight.mean() + weight.std() * torch.randn(weight.shape, device=weight.device, dtype=weight.dtype)
    return momentum * weight + (1 - momentum) * drawn


@torch.no_grad()
def _silence(layer: Any) -> None:
    for output in (layer.self_attn.out_proj, layer.mlp.fc2):
        output.weight.zero_()
        if output.bias is not None:
            output.bias.zero_()


@torch.no_grad()
def _more_neurons(old: nn.Linear, factor: int, momentum: float) -> nn.Linear:
    """(factor m, w) of (m, w): the old neurons first."""
    new = nn.Linear(old.in_features, factor * old.out_features, bias=old.bias is not None)
    new.weight.copy_(torch.cat([old.weight, *(_mixed(old.weight, momentum) for _ in range(factor - 1))]))
    if old.bias is not None:
        new.bias.copy_(old.bias.repeat(factor))
    return new.to(old.weight)


@torch.no_grad()
def _more_inputs(old: nn.Linear, factor: int) -> nn.Linear:
    """(w, factor m) of (w, m): zero for the new neurons."""
    new = nn.Linear(factor * old.in_features, old.out_features, bias=old.bias is not None)
    new.weight.zero_()
    new.weight[:, : old.in_features] = old.weight
    if old.bias is not None:
        new.bias.copy_(old.bias)
    return new.to(old.weight)
