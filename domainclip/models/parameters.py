"""Names, patterns, weight decay and fingerprints of weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.errors import RecipeError

# By the first word of a weight's name, in every supported family: which half of the model it belongs to.
PREFIXES = {
    "vision_model": "image",
    "visual_projection": "image",
    "text_model": "text",
    "text_projection": "text",
    "logit_scale": "scale",
    "logit_bias": "bias",
}
_MEMBER = re.compile(r"^members\.\d+\.")  # of an ensemble, whose members name their weights likewise
# Prefix of the names of weights that belong to objectives: they have a rate of their own, and are not saved.
OBJECTIVE_WEIGHTS = "extra/objectives."
POOLING = "image_pooling."  # prefix of such weights in `DualEncoder.added_modules`
# Tables and single tokens that are added to the input once: decay would only pull them to zero. So it would a
# token's embedding: one that no caption of the corpus has gets no gradient, and would be forgotten.
_NO_DECAY = re.compile(
    r"position|class_embedding|cls_token|token_type|probe|head\.query$|added_tokens|pooling\.place"
    r"|(token|word)_embeddings?\.weight"
)
# Keys of a config that concern files, not numbers.
_NOT_NUMERICAL = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")


def parameter_name(name: str) -> str:
    """modality/name, the same with and without an adapter around the model."""
    name = name.removeprefix("base_model.model.")
    first = _MEMBER.sub("", name).split(".")[0]
    return f"{PREFIXES.get(first, 'other')}/{name}"


def added_parameter_name(name: str) -> str:
    """The same for a weight of an added module; frame pooling belongs to the image side."""
    return f"image/{name}" if name.startswith(POOLING) else f"extra/{name}"


def objective_weight_name(objective: str, weight: str) -> str:
    """The name of an objective's own weight; outside components are named with points and a colon."""
    return f"{OBJECTIVE_WEIGHTS}{objective_key(objective)}.{weight}"


def objective_key(objective: str) -> str:
    """The name of an objective as a module's name."""
    return re.sub(r"\W", "_", objective)


def match_patterns(names: Iterable[str], patterns: list[tuple[str, float]]) -> dict[str, float]:
    """The factor of the first pattern that matches the whole name, by name.

    One ordered list decides about every weight [big_vision's optax.py]; there is no default.

    Raises: RecipeError for a name that no pattern covers, and for a pattern without effect.
    """
    compiled = [_compile(pattern) for pattern, _ in patterns]
    first = {name: next((i for i, p in enumerate(compiled) if p.fullmatch(name)), None) for name in names}
    uncovered = [name for name, i in first.items() if i is None]
    if uncovered:
        more = f" and {len(uncovered) - 1} more" if len(uncovered) > 1 else ""
        raise RecipeError(
            f'no pattern covers the weight "{uncovered[0]}"{more}; end with (".*", 0.0) to freeze the rest'
        )
    for i, pattern in enumerate(compiled):
        if i not in first.values():
            _refuse_without_effect(pattern, first)
    return {name: patterns[i][1] for name, i in first.items() if i is not None}


def uses_weight_decay(name: str, weight: Tensor) -> bool:
    """Whether weight decay applies: to matrices only, no norm, bias, position, token embedding or scale."""
    return weight.ndim > 1 and not _NO_DECAY.search(name)


def fingerprint(model: nn.Module, config: Any, part: str, only: Collection[str] | None = None) -> str:
    """sha256 of the config of "image", "text" or "all", and of names and bytes of its weights and buffers.

    `only` restricts it to weights and buffers of these names.
    """
    # The same bytes under another activation give other numbers, so the config belongs to the key.
    configs = [config.vision_config] * (part != "text") + [config.text_config] * (part != "image")
    digest = _config_digest([_numerical_options(config) for config in configs])
    tensors = {parameter_name(name): tensor for name, tensor in _weights_and_buffers(model)}
    hash_tensors(
        digest,
        {
            name: tensor
            for name, tensor in tensors.items()
            if part in ("all", name.split("/")[0]) and (only is None or name in only)
        },
    )
    return digest.hexdigest()


def fingerprint_with_pooling(key: str, frames: int, added_modules: nn.ModuleDict) -> str:
    """The fingerprint of an image tower, extended by how it pools several images."""
    pooling = {
        name: tensor for name, tensor in added_modules.state_dict().items() if name.startswith(POOLING)
    }
    if frames == 1 and not pooling:
        return key
    digest = hashlib.sha256(f"{key} {frames}".encode())
    hash_tensors(digest, pooling, dtypes=False)
    return digest.hexdigest()


def module_fingerprint(model: nn.Module) -> str:
    """sha256 of the config of a model with one tower, and of the names and bytes of weights and buffers."""
    digest = _config_digest(_numerical_options(model.config))
    hash_tensors(digest, dict(_weights_and_buffers(model)))
    return digest.hexdigest()


def hash_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor], dtypes: bool = True) -> None:
    """Add tensors, in the order of their names: name, type (if `dtypes`), shape and bytes of each."""
    for name, tensor in sorted(tensors.items()):
        kind = f"{tensor.dtype} " if dtypes else ""
        digest.update(f"{name} {kind}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _weights_and_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _numerical_options(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _NOT_NUMERICAL}


def _config_digest(options: Any) -> hashlib._Hash:
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())


def _refuse_without_effect(pattern: re.Pattern[str], names: Iterable[str]) -> None:
    names = list(names)
    if any(pattern.fullmatch(name) for name in names):
        raise RecipeError(
            f'pattern "{pattern.pattern}" has no effect: earlier ones cover all weights that it matches'
        )
    raise RecipeError(f'pattern "{pattern.pattern}" matches no weight; weights are named like "{names[0]}"')


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RecipeError(f'pattern "{pattern}" is not a regular expression: {error}') from None
