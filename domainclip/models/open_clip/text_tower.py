"""The text tower of a checkpoint of open_clip: its own transformer, or an encoder of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import transformers
from torch import Tensor

from domainclip.models import checkpoint_files, folder_checks
from domainclip.models.open_clip import tables
from domainclip.models.open_clip.config import FILE, OpenClipConfig, TextTower
from domainclip.models.open_clip.image_tower import Projection, activation
from domainclip.models.open_clip.key_map import Entry, one, same

_POOLS = {
    "own": ("argmax", "eos", "first", "last"),
    "hf": ("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"),
}


@dataclass(frozen=True)
class TextPart:
    """A text tower: its config in transformers, its weights, its pooling, and the projection behind it."""

    kind: Literal["causal", "bidirectional", "class_token", "hf"]
    config: Any
    table: list[Entry]
    pool: str
    projection: Projection


def text_part(
    base: str, config: OpenClipConfig, weights: Mapping[str, Tensor], end_of_text: int | None
) -> TextPart:
    """The text tower that a config describes; `end_of_text` is the id that its tokenizer ends a text with.

    Raises: ModelError for a tower that is not supported, or whose config cannot be fetched.
    """
    tower = config.text
    kind = "hf" if tower.hf_model_name else "own"
    name, pool = ("hf_pooler_type", tower.hf_pooler_type) if kind == "hf" else ("pool_type", tower.pool_type)
    if pool not in _POOLS[kind]:
        folder_checks.refuse(base, f"{FILE}: text_cfg.{name}: {pool} is not supported: name another base")
    return _encoder(base, config, weights) if kind == "hf" else _own(config, end_of_text)


def _own(config: OpenClipConfig, end_of_text: int | None) -> TextPart:
    tower = config.text
    kind = transformers.SiglipTextConfig if tower.no_causal_mask else transformers.CLIPTextConfig
    text = kind(
        vocab_size=tower.vocab_size,
        hidden_size=tower.width,
        intermediate_size=int(tower.width * tower.mlp_ratio),
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        max_position_embeddings=tower.context_length,
        hidden_act=activation(tower.act_kwargs, config.quick_gelu),
        layer_norm_eps=tower.norm_kwargs.get("eps", 1e-5),
        eos_token_id=tower.eos_id if tower.pool_type == "eos" and not tower.embed_cls else end_of_text,
        **({"pad_token_id": tower.pad_id} if tower.has_class_token else {}),
        **({"projection_size": config.width} if tower.no_causal_mask else {}),
    )
    table = [*tables.clip_text(tower.layers), *tables.text_projection(tower.proj_bias)]
    projection: Projection = "linear+bias" if tower.proj_bias else "linear"
    if tower.has_class_token:
        table.append(one("text.cls_emb", "text_model.class_embedding"))
        return TextPart("class_token", text, table, "class_token", projection)
    return TextPart(
        "bidirectional" if tower.no_causal_mask else "causal", text, table, tower.pool_type, projection
    )


def _encoder(base: str, config: OpenClipConfig, weights: Mapping[str, Tensor]) -> TextPart:
    tower = config.text
    text = _encoder_config(base, config)
    if text.is_encoder_decoder:
        folder_checks.refuse(
            base,
            f"{FILE}: text_cfg.hf_model_name: the encoder of an encoder-decoder ({text.model_type}) is not "
            "supported: name another base",
        )
    names = [name for name in weights if not name.endswith("position_ids")]
    table = same(names, "text.transformer.", "text_model.") + same(names, "text.proj.", "text_projection.")
    projections: dict[str, Projection] = {"linear": "linear", "mlp": "mlp", "": "none"}
    if tower.hf_proj_type not in projections:
        folder_checks.refuse(
            base, f"{FILE}: text_cfg.hf_proj_type: {tower.hf_proj_type} is not linear or mlp: correct it"
        )
    return TextPart("hf", text, table, tower.hf_pooler_type, projections[tower.hf_proj_type])


def _encoder_config(base: str, config: OpenClipConfig) -> Any:
    name = config.text.hf_model_name
    if config.text_config:
        return transformers.AutoConfig.for_model(**config.text_config)
    try:
        folder = checkpoint_files.find_files(name, ["config.json"])
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = checkpoint_files.in_one_line(error).removeprefix(f'base "{name}": ')
        folder_checks.refuse(
            base,
            f"its text tower is {name}, whose config.json cannot be read: {reason}: where the Hub can be "
            f"reached, run: hf download {name} config.json",
        )


def pads_to_context(tower: TextTower) -> bool:
    """Whether padding changes the embedding, so that every text is as long as the context."""
    return not tower.hf_model_name and (tower.no_causal_mask or tower.pool_type == "last")
