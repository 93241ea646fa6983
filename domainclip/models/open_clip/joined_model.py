"""A dual encoder of open_clip that is none of transformers' models: two towers, each with its projection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from domainclip.models.open_clip import coca, key_map, tables
from domainclip.models.open_clip.attention_pool import (
    PooledClip,
    PooledClipConfig,
    PooledVit,
    PooledVitConfig,
)
from domainclip.models.open_clip.class_token_text import ClassTokenText
from domainclip.models.open_clip.config import FILE
from domainclip.models.open_clip.timm_trunk import TimmTrunk, TrunkConfig

WEIGHTS = "open_clip_model.safetensors"
_IMAGE_MODELS = {
    transformers.CLIPVisionConfig: transformers.CLIPVisionModel,
    transformers.SiglipVisionConfig: transformers.SiglipVisionModel,
    transformers.ViTConfig: transformers.ViTModel,
    PooledClipConfig: PooledClip,
    PooledVitConfig: PooledVit,
}


class JoinedConfig(PreTrainedConfig):
    """The configs of the towers, and what stands between them and the embedding."""

    model_type = "open_clip"
    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 512
    image_projection: str = "linear"
    text_projection: str = "linear"
    text_kind: str = "hf"
    text_pool: str = "argmax"
    layout: str = "open_clip"  # or "conch": the names of the weights
    has_bias: bool = False


class JoinedModel(PreTrainedModel):
    """Saved in the format of open_clip, which loads it again: transformers has no class for it."""

    config_class = JoinedConfig
    base_model_prefix = "open_clip"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: JoinedConfig) -> None:
        super().__init__(config)
        self.table: list[key_map.Entry] = []
        self.source: dict[str, Any] = {}
        self.plain_names = False  # whether the file of the base names text weights without `text.`
        vision, text = config.vision_config, config.text_config
        self.vision_model = _image_model(vision)
        self.text_model = _text_model(config)
        image_width = _image_width(self.vision_model)
        self.visual_projection = _projection(config.image_projection, image_width, config.projection_dim, 2)
        self.text_projection = _projection(config.text_projection, text.hidden_size, config.projection_dim, 0)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        if config.has_bias:
            self.logit_bias = nn.Parameter(torch.zeros(()))
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """The image tower's output, its pooled rows projected."""
        out = self.vision_model(pixel_values)
        pooled = out.pooler_output
        if pooled is None:  # a ViT, without a pooler
            pooled = out.last_hidden_state[:, 0]
        return BaseModelOutputWithPooling(
            last_hidden_state=out.last_hidden_state, pooler_output=self.visual_projection(pooled)
        )

    def get_text_features(self, input_ids: Tensor, **inputs: Tensor) -> BaseModelOutputWithPooling:
        """The text tower's output, its pooled rows projected."""
        out = self.text_model(input_ids=input_ids, **inputs)
        pooled = self._pooled(input_ids, out, inputs.get("attention_mask"))
        return BaseModelOutputWithPooling(
            last_hidden_state=out.last_hidden_state, pooler_output=self.text_projection(pooled)
        )

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        table: nn.Module = self.text_model.get_input_embeddings()
        return table

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write weights and config under open_clip's names; the config also holds that of an encoder."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        theirs = key_map.to_theirs(self.table, self.state_dict())
        if self.plain_names:
            theirs = tables.plain(theirs)
        if self.config.text_kind == "class_token":
            theirs = coca.with_class_position(theirs)
        save_file({name: value.clone() for name, value in theirs.items()}, folder / WEIGHTS, {"format": "pt"})
        text, source = self.config.text_config, json.loads(json.dumps(self.source))
        options = source.get("model_cfg", source)["text_cfg"]
        size = self.config.vision_config.image_size
        source.get("model_cfg", source)["vision_cfg"]["image_size"] = size
        if (source.get("preprocess_cfg") or {}).get("size"):
            source["preprocess_cfg"]["size"] = size
        if self.config.text_kind == "hf":
            source.setdefault("model_cfg", dict(source))
            source["text_config"] = {
                key: value for key, value in text.to_dict().items() if key not in ("_name_or_path", "dtype")
            }
        else:
            context = text.max_position_embeddings + (self.config.layout == "conch")  # its class token
            options |= {"vocab_size": text.vocab_size, "context_length": context}
        (folder / FILE).write_text(json.dumps(source, indent=2), encoding="utf-8")

    def _pooled(self, ids: Tensor, out: Any, mask: Tensor | None) -> Tensor:
        hidden: Tensor = out.last_hidden_state
        pool = self.config.text_pool
        if pool in ("cls_pooler", "class_token") and out.pooler_output is not None:
            pooled: Tensor = out.pooler_output
            return pooled
        if pool == "mean_pooler":
            shown = torch.ones_like(ids) if mask is None else mask
            return (hidden * shown.unsqueeze(-1)).sum(dim=1) / shown.sum(dim=-1, keepdim=True)
        if pool in ("argmax", "eos"):
            scores = ids if pool == "argmax" else (ids == self.config.text_config.eos_token_id).int()
            return hidden[torch.arange(len(ids), device=ids.device), scores.argmax(dim=-1)]
        return hidden[:, -1 if pool == "last" else 0]


def _image_model(config: Any) -> Any:
    if isinstance(config, TrunkConfig):
        return TimmTrunk(config)
    options = {"add_pooling_layer": False} if type(config) is transformers.ViTConfig else {}
    return _IMAGE_MODELS[type(config)]._from_config(config, **options)


def _image_width(tower: Any) -> int:
    """Width of the pooled rows."""
    config = tower.config
    if isinstance(config, TrunkConfig):
        width: int = tower.width
        return width
    is_pooled = isinstance(config, PooledClipConfig | PooledVitConfig)
    return int(config.pooled_width if is_pooled else config.hidden_size)


def _text_model(config: JoinedConfig) -> Any:
    text = config.text_config
    if config.text_kind == "class_token":
        return ClassTokenText._from_config(text)
    if config.text_kind == "causal":
        return transformers.CLIPTextModel._from_config(text)
    if config.text_kind == "bidirectional":
        model = transformers.SiglipTextModel._from_config(text)
        model.head = nn.Identity()  # the projection stands behind the pooling
        return model
    try:
        return transformers.AutoModel.from_config(text, add_pooling_layer=config.text_pool == "cls_pooler")
    except TypeError:  # an encoder that never has one
        return transformers.AutoModel.from_config(text)


def _projection(kind: str, width: int, out: int, factor: int) -> nn.Module:
    """A hidden layer is `factor` times as wide as the embedding; 0: as the mean of input and output."""
    bias = kind.endswith("+bias")
    if kind == "none":
        return nn.Identity()
    if kind.startswith("linear"):
        return nn.Linear(width, out, bias=bias)
    hidden = factor * out if factor else (width + out) // 2
    first: Callable[..., nn.Module] = nn.Linear
    return nn.Sequential(
        first(width, hidden, bias=bool(factor)), nn.GELU(), nn.Linear(hidden, out, bias=bias)
    )
