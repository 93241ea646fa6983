"""How weights are called, which of them learn, which decay, and what tells one set from another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.errors import RecipeError

# The first word of a weight's name says which part it belongs to, in every supported family.
PREFIXES = {
    "vision_model": "image",
    "visual_projection": "image",
    "text_model": "text",
    "text_projection": "text",
    "logit_scale": "scale",
    "logit_bias": "bias",
}
POOLING = "image_pooling."  # how such weights begin in `Towers.extra`
# Tables and single tokens that are added to the input once: decay would only pull them to zero.
_UNDECAYED = re.compile(r"position|class_embedding|cls_token|token_type|probe|added_tokens|pooling\.place")
# What a config says about files, not about numbers.
_NOISE = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")


def parameter_name(name: str) -> str:
    """part/name, the same with and without an adapter around the model."""
    name = name.removeprefix("base_model.model.")
    return f"{PREFIXES.get(name.split('.')[0], 'other')}/{name}"


def added_parameter_name(name: str) -> str:
    """The same of a weight beside the model: what pools pictures belongs to their tower."""
    return f"image/{name}" if name.startswith(POOLING) else f"extra/{name}"


def match_patterns(names: Iterable[str], patterns: list[tuple[str, float]]) -> dict[str, float]:
    """The factor of the first pattern that matches the whole name, by name.

    One ordered list decides everything [big_vision's optax.py], and nothing by default.

    Raises: RecipeError for a name that no pattern covers, and a pattern that decides nothing.
    """
    compiled = [_compile(pattern) for pattern, _ in patterns]
    first = {name: next((i for i, p in enumerate(compiled) if p.fullmatch(name)), None) for name in names}
    uncovered = [name for name, i in first.items() if i is None]
    if uncovered:
        more = f" and {len(uncovered) - 1} more" if len(uncovered) > 1 else ""
        raise RecipeError(
            f'no pattern covers the weight "{uncovered[0]}"{more}; end with (".*", 0.0) to lock what is left'
        )
    for i, pattern in enumerate(compiled):
        if i not in first.values():
            _explain_idle(pattern, first)
    return {name: patterns[i][1] for name, i in first.items() if i is not None}


def uses_weight_decay(name: str, weight: Tensor) -> bool:
    """Whether weight decay may pull at it: matrices only, no norm, bias, position, single token or scale."""
    return weight.ndim > 1 and not _UNDECAYED.search(name)


def fingerprint(model: nn.Module, config: Any, part: str, only: Collection[str] | None = None) -> str:
    """sha256 over a part's config and the names, types, shapes and bytes of its weights and buffers.

    `only` leaves out the weights and buffers of other names.
    """
    # The same bytes under another activation give other numbers, so the config belongs to the key.
    configs = [config.vision_config] * (part != "text") + [config.text_config] * (part != "image")
    options = [{k: v for k, v in one.to_dict().items() if k not in _NOISE} for one in configs]
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    tensors = {parameter_name(n): t for n, t in (*model.named_parameters(), *model.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        if part in ("all", name.split("/")[0]) and (only is None or name in only):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint_with_pooling(own: str, frames: int, extra: nn.ModuleDict) -> str:
    """The fingerprint of an image tower together with how it sees several pictures as one."""
    added = {name: tensor for name, tensor in extra.state_dict().items() if name.startswith(POOLING)}
    if frames == 1 and not added:
        return own
    digest = hashlib.sha256(f"{own} {frames}".encode())
    for name, tensor in sorted(added.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def module_fingerprint(model: nn.Module) -> str:
    """The same over a model of one tower: its config, and the names and bytes of all it holds."""
    options = {k: v for k, v in model.config.to_dict().items() if k not in _NOISE}  # type: ignore[union-attr, operator]
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name, tensor in sorted((*model.named_parameters(), *model.named_buffers())):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _explain_idle(pattern: re.Pattern[str], names: Iterable[str]) -> None:
    names = list(names)
    if any(pattern.fullmatch(name) for name in names):
        raise RecipeError(
            f'pattern "{pattern.pattern}" decides nothing: earlier ones cover all that it matches'
        )
    raise RecipeError(f'pattern "{pattern.pattern}" matches no weight; they are named like "{names[0]}"')


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RecipeError(f'pattern "{pattern}" is not a regular expression: {error}') from None
