"""`open_clip_config.json` as typed values; an option that changes the arithmetic unsupported is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from domainclip.models import folder_checks

FILE = "open_clip_config.json"
# Options of open_clip that change the model, with the only value that is supported.
_FIXED: dict[str, Any] = {
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "embed_cls": False,
    "proj_type": "linear",
    "tokenizer_mode": None,
}
# Options of training alone, or of pretrained weights that these ones replace.
_IGNORED = (
    *("patch_dropout", "timm_model_pretrained", "timm_drop", "timm_drop_path", "output_tokens"),
    *("hf_model_pretrained", "pad_id", "attn_pooler_queries", "attn_pooler_heads"),
)
_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}
_OTHER_BASE = "name another base, such as openai/clip-vit-base-patch32"


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """Options of the image tower, named as open_clip names them, with its defaults."""

    layers: int = 12
    width: int = 768
    head_width: int = 64
    mlp_ratio: float = 4.0
    patch_size: int = 16
    image_size: int = 224
    pool_type: str = "tok"
    act_kwargs: dict[str, Any] = field(default_factory=dict)
    norm_kwargs: dict[str, Any] = field(default_factory=dict)
    timm_model_name: str = ""  # empty: open_clip's own ViT
    timm_pool: str = "avg"
    timm_proj: str = "linear"  # empty: the classifier of timm's model projects
    timm_proj_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """Options of the text tower, named as open_clip names them, with its defaults."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    eos_id: int = 2
    proj_bias: bool = False
    act_kwargs: dict[str, Any] = field(default_factory=dict)
    norm_kwargs: dict[str, Any] = field(default_factory=dict)
    hf_tokenizer_name: str = ""  # empty: the byte pairs of CLIP
    tokenizer_kwargs: dict[str, Any] = field(default_factory=dict)
    hf_model_name: str = ""  # empty: open_clip's own transformer
    hf_proj_type: str = "mlp"  # empty: none
    hf_pooler_type: str = "mean_pooler"


@dataclass(frozen=True, kw_only=True)
class OpenClipConfig:
    """An architecture and its preprocessing."""

    width: int  # of the embeddings
    image: ImageTower
    text: TextTower
    quick_gelu: bool
    has_bias: bool  # trained with the sigmoid objective
    preprocess: dict[str, Any]
    text_config: dict[str, Any]  # of a text tower of transformers, where a folder has it
    source: dict[str, Any]  # the file, for saving


def is_open_clip(folder: Path) -> bool:
    """Whether a folder has a checkpoint of open_clip, and none of transformers or peft."""
    others = ("config.json", "adapter_config.json")
    return (folder / FILE).is_file() and not any((folder / name).is_file() for name in others)


def read(base: str, folder: Path) -> OpenClipConfig:
    """The config of a checkpoint.

    Raises: ModelError that names the option that is missing, broken or not supported.
    """
    try:
        source = json.loads((folder / FILE).read_text(encoding="utf-8-sig"))
        model = source.get("model_cfg", source)
        width, image, text = int(model["embed_dim"]), dict(model["vision_cfg"]), dict(model["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else "it cannot be read"
        folder_checks.refuse(base, f"{FILE}: {what}: download it again")
    if "multimodal_cfg" in model:
        folder_checks.refuse(base, f"{FILE}: multimodal_cfg: a CoCa, which is not supported: {_OTHER_BASE}")
    if isinstance(image.get("layers"), list):
        folder_checks.refuse(
            base, f"{FILE}: vision_cfg.layers: a ResNet of CLIP, which is not supported: {_OTHER_BASE}"
        )
    return OpenClipConfig(
        width=width,
        image=_tower(base, "vision_cfg", image, ImageTower),
        text=_tower(base, "text_cfg", text, TextTower),
        quick_gelu=bool(model.get("quick_gelu")),
        has_bias=model.get("init_logit_bias") is not None,
        preprocess=dict(source.get("preprocess_cfg") or {}),
        text_config=dict(source.get("text_config") or {}),
        source=source,
    )


def _tower(base: str, section: str, options: dict[str, Any], kind: type[Any]) -> Any:
    known = {option.name: option for option in fields(kind)}
    for name, value in options.items():
        where = f"{FILE}: {section}.{name}"
        if name in _FIXED and value != _FIXED[name]:
            folder_checks.refuse(base, f"{where}: {json.dumps(value)} is not supported: {_OTHER_BASE}")
        if name not in known and name not in _FIXED and name not in _IGNORED:
            folder_checks.refuse(base, f"{where} is not an option that is known: {_OTHER_BASE}")
    size = options.get("image_size")
    if isinstance(size, list) and len(set(size)) == 1:  # height and width
        options = {**options, "image_size": size[0]}
    # None stands for nothing in every option that may be absent.
    empty = {"str": "", "bool": False}
    values = {
        name: empty.get(str(known[name].type), {}) if value is None else value
        for name, value in options.items()
        if name in known
    }
    for name, value in values.items():
        expected: Any = _TYPES.get(str(known[name].type), dict)
        if not isinstance(value, expected):
            folder_checks.refuse(
                base, f"{FILE}: {section}.{name}: {json.dumps(value)} is no {known[name].type}: correct it"
            )
    return kind(**values)
