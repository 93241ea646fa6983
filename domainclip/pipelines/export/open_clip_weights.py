"""The weights of a CLIP of transformers under the names of open_clip.

open_clip has query, key and value in one matrix, and the projections transposed. Shapes: w width of a tower,
d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_IMAGE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_POSITIONS = "embeddings.position_embedding.weight"
_UNUSED = "position_ids"  # a buffer of older versions: 0, 1, 2, …


def convert(hf_model: Any, positions: int) -> dict[str, Tensor]:
    """The state of the open_clip model; of the text positions, the first `positions`.

    Raises: KeyError for a weight that a CLIP does not have.
    """
    state = {name: value.detach().float() for name, value in hf_model.state_dict().items()}
    image = _part(state, "vision_model.")
    text = _part(state, "text_model.")
    result = {f"visual.{name}": value for name, value in _tower(image, _IMAGE)}
    result |= {"positional_embedding": text.pop(_POSITIONS)[:positions]}
    result |= dict(_tower(text, _TEXT))
    result["visual.proj"] = state["visual_projection.weight"].T
    result["text_projection"] = state["text_projection.weight"].T
    result["logit_scale"] = state["logit_scale"].reshape(())
    return {name: value.contiguous() for name, value in result.items()}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.endswith(_UNUSED)
    }


def _tower(state: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The weights of one tower; every one of them, or a KeyError."""
    for name, value in state.items():
        if not name.startswith("encoder.layers."):
            yield names[name], value
            continue
        layer, _, part = name.removeprefix("encoder.layers.").partition(".")
        block = f"transformer.resblocks.{layer}"
        module, _, kind = part.rpartition(".")
        if module in ("self_attn.k_proj", "self_attn.v_proj"):
            continue  # taken with the query
        if module == "self_attn.q_proj":
            yield f"{block}.attn.in_proj_{kind}", torch.cat([state[name.replace("q_proj", p)] for p in _QKV])
        else:
            yield f"{block}.{_LAYER[module]}.{kind}", value


_QKV = ("q_proj", "k_proj", "v_proj")
