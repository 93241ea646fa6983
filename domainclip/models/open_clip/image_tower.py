"""The image tower of a checkpoint of open_clip: as a tower of transformers where there is an equal one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import transformers
from torch import Tensor

from domainclip.models import folder_checks
from domainclip.models.open_clip import coca, tables
from domainclip.models.open_clip.attention_pool import PooledClipConfig, PooledVitConfig
from domainclip.models.open_clip.config import FILE, ImageTower, OpenClipConfig
from domainclip.models.open_clip.key_map import Entry, both, one, same
from domainclip.models.open_clip.timm_trunk import TrunkConfig

Projection = Literal["linear", "linear+bias", "mlp", "mlp+bias", "none"]
# Attention heads by the name of a size in timm, whose weights do not show them.
_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "so400m": 16, "giantopt": 16}
_VIT = re.compile(rf"vit_({'|'.join(_HEADS)})_patch(\d+)(?:_(clip|siglip))?(_quickgelu)?_\d+(?:\..*)?")
# timm's SigLIPs with the approximate GELU; the others have the exact one.
_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")


@dataclass(frozen=True)
class ImagePart:
    """An image tower: its config in transformers, its weights, and the projection behind it."""

    kind: Literal["clip", "siglip", "vit", "pooled", "trunk"]
    config: Any
    table: list[Entry]
    projection: Projection = "linear"


def image_part(base: str, config: OpenClipConfig, weights: Mapping[str, Tensor]) -> ImagePart:
    """The image tower that a config describes; `weights` give the sizes that it leaves to timm.

    Raises: ModelError for a tower that is not supported.
    """
    tower = config.image
    if config.layout == "conch":
        return _conch(config, weights)
    if not tower.timm_model_name:
        return _own(base, config, weights)
    match = _VIT.fullmatch(tower.timm_model_name)
    kind = match[3] if match else None
    if match and kind == "siglip" and (tower.timm_pool, tower.timm_proj) == ("map", "none"):
        return ImagePart("siglip", *_siglip(tower, match, weights), "none")
    by_token = tower.timm_pool == "token" or (tower.timm_pool == "" and tower.timm_proj != "")
    if match and kind != "siglip" and by_token:
        vision, table = _clip(tower, match, weights) if kind else _vit(tower, match, weights)
        head, projection = _projection(tower)
        return ImagePart("clip" if kind else "vit", vision, [*table, *head], projection)
    return _trunk(base, config, weights)


def _own(base: str, config: OpenClipConfig, weights: Mapping[str, Tensor]) -> ImagePart:
    tower = config.image
    if tower.pool_type != "tok":
        folder_checks.refuse(
            base, f"{FILE}: vision_cfg.pool_type: {tower.pool_type} is not supported: name another base"
        )
    options = {
        **_own_sizes(tower),
        "hidden_act": activation(tower.act_kwargs, config.quick_gelu),
        "layer_norm_eps": tower.norm_kwargs.get("eps", 1e-5),
    }
    if not tower.attentional_pool:
        return ImagePart("clip", transformers.CLIPVisionConfig(**options), tables.clip_image(tower.layers))
    vision = PooledClipConfig(**options, **_pooling(config))
    table = tables.clip_image(tower.layers, norm="vision_model.head.norm")
    return ImagePart("pooled", vision, [*table, *tables.attention_pool(coca.pool_name(config), weights)])


def _conch(config: OpenClipConfig, weights: Mapping[str, Tensor]) -> ImagePart:
    tower = config.image
    vision = PooledVitConfig(**_own_sizes(tower), **_pooling(config), hidden_act="gelu", layer_norm_eps=1e-6)
    table = [
        *tables.timm_vit(tower.layers),
        *tables.attention_pool(coca.pool_name(config), weights),
        *both("visual.ln_contrast", "vision_model.head.norm"),
        one("visual.proj_contrast", "visual_projection.weight", transposed=True),
    ]
    return ImagePart("pooled", vision, table)


def _own_sizes(tower: ImageTower) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.width // tower.head_width,
        "image_size": tower.image_size,
        "patch_size": tower.patch_size,
    }


def _pooling(config: OpenClipConfig) -> dict[str, Any]:
    tower = config.image
    return {
        "pooled_width": config.width,
        "pooling_heads": tower.attn_pooler_heads,
        "pooling_eps": tower.norm_kwargs.get("eps", 1e-5),
    }


def activation(options: Mapping[str, Any], quick_gelu: bool) -> str:
    """The name in transformers of an activation of open_clip."""
    if quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if options.get("approximate") == "tanh" else "gelu"


def _sizes(tower: ImageTower, match: re.Match[str], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    numbers = {int(name.split(".")[3]) for name in weights if name.startswith("visual.trunk.blocks.")}
    hidden, width = weights["visual.trunk.blocks.0.mlp.fc1.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": len(numbers),
        "num_attention_heads": _HEADS[match[1]],
        "image_size": tower.image_size,
        "patch_size": int(match[2]),
    }


def _siglip(
    tower: ImageTower, match: re.Match[str], weights: Mapping[str, Tensor]
) -> tuple[Any, list[Entry]]:
    sizes = _sizes(tower, match, weights)
    act = "gelu_pytorch_tanh" if _TANH.match(tower.timm_model_name) else "gelu"
    vision = transformers.SiglipVisionConfig(**sizes, hidden_act=act, layer_norm_eps=1e-6)
    return vision, tables.timm_siglip(sizes["num_hidden_layers"])


def _clip(tower: ImageTower, match: re.Match[str], weights: Mapping[str, Tensor]) -> tuple[Any, list[Entry]]:
    sizes = _sizes(tower, match, weights)
    act = "quick_gelu" if match[4] else "gelu"
    vision = transformers.CLIPVisionConfig(**sizes, hidden_act=act, layer_norm_eps=1e-5)
    return vision, tables.timm_clip(sizes["num_hidden_layers"])


def _vit(tower: ImageTower, match: re.Match[str], weights: Mapping[str, Tensor]) -> tuple[Any, list[Entry]]:
    sizes = _sizes(tower, match, weights)
    vision = transformers.ViTConfig(**sizes, hidden_act="gelu", layer_norm_eps=1e-6)
    return vision, tables.timm_vit(sizes["num_hidden_layers"])


def _projection(tower: ImageTower) -> tuple[list[Entry], Projection]:
    theirs, ours = "visual.head.proj", "visual_projection"
    if tower.timm_proj == "none":
        return [], "none"
    if tower.timm_proj == "":
        return both("visual.trunk.head", ours), "linear+bias"
    if tower.timm_proj == "mlp":
        table = both("visual.head.mlp.fc1", f"{ours}.0") + both("visual.head.mlp.fc2", f"{ours}.2")
        return (table, "mlp+bias") if tower.timm_proj_bias else (table[:-1], "mlp")
    table = both(theirs, ours)
    return (table, "linear+bias") if tower.timm_proj_bias else (table[:1], "linear")


def _trunk(base: str, config: OpenClipConfig, weights: Mapping[str, Tensor]) -> ImagePart:
    """Any other model of timm, computed by timm itself."""
    tower = config.image
    if tower.timm_pool in ("abs_attn", "rot_attn"):
        folder_checks.refuse(
            base, f"{FILE}: vision_cfg.timm_pool: {tower.timm_pool} is not supported: name another base"
        )
    own_head = tower.timm_proj == ""  # the classifier of timm's model
    vision = TrunkConfig(
        timm_model_name=tower.timm_model_name,
        timm_pool=tower.timm_pool,
        classes=config.width if own_head else 0,
        resets_classifier=tower.timm_proj in ("linear", "mlp"),
        image_size=tower.image_size,
    )
    head, projection = ([], "none") if own_head else _projection(tower)
    table = same(weights, "visual.trunk.", "vision_model.trunk.")
    return ImagePart("trunk", vision, [*table, *head], projection)
