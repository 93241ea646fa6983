"""`open_clip_config.json` as typed values; an option that changes the arithmetic unsupported is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from domainclip.models import folder_checks
from domainclip.models.open_clip import conch

FILE = "open_clip_config.json"
# Options of open_clip that change the model, with the values that are supported.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,),
    "attentional_pool": (False, True),  # as a string, open_clip's own towers do not run
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,),
    "block_type": (None,),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
    "use_pad_mask": (False,),
    "correct_cls_mask": (False,),
    "proj_type": ("linear",),
    "tokenizer_mode": (None,),
}
# Options of training or captions alone, or of pretrained weights that these ones replace.
_IGNORED = (
    *("patch_dropout", "timm_model_pretrained", "timm_drop", "timm_drop_path", "output_tokens"),
    *("hf_model_pretrained", "attn_pooler_queries"),
)
_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}
_OTHER_BASE = "name another base, such as openai/clip-vit-base-patch32"
_DECODER = "text_decoder."  # the caption decoder of a CoCa


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
    attentional_pool: bool = False  # of a CoCa: a learned query reads the tokens
    attn_pooler_heads: int = 8
    act_kwargs: dict[str, Any] = field(default_factory=dict)
    norm_kwargs: dict[str, Any] = field(default_factory=dict)
    timm_model_name: str = ""  # empty: open_clip's own ViT
    timm_pool: str = "avg"
    timm_proj: str = "linear"  # empty: the classifier of timm's model projects
    timm_proj_bias: bool = False

    @property
    def has_attention_pool(self) -> bool:
        """Whether a learned query reads the tokens, which a tower of timm does in its own way."""
        return self.attentional_pool and not self.timm_model_name


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
    embed_cls: bool = False  # of a CoCa: a class token behind the text is pooled
    pad_id: int = 0  # which that token does not read
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

    @property
    def has_class_token(self) -> bool:
        """Whether a class token is pooled, which an encoder of transformers has of its own."""
        return self.embed_cls and not self.hf_model_name


@dataclass(frozen=True, kw_only=True)
class OpenClipConfig:
    """An architecture and its preprocessing."""

    layout: Literal["open_clip", "conch"]  # the package whose names the weights have
    width: int  # of the embeddings
    image: ImageTower
    text: TextTower
    quick_gelu: bool
    has_bias: bool  # trained with the sigmoid objective
    caption_parts: tuple[str, ...]  # prefixes of weights that serve captions alone
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
    of_conch = conch.is_conch(model)
    if of_conch:
        image, text = conch.image_options(image), conch.text_options(text)
    if isinstance(image.get("layers"), list):
        folder_checks.refuse(
            base, f"{FILE}: vision_cfg.layers: a ResNet of CLIP, which is not supported: {_OTHER_BASE}"
        )
    config = OpenClipConfig(
        layout="conch" if of_conch else "open_clip",
        width=width,
        image=_tower(base, "vision_cfg", image, ImageTower),
        text=_tower(base, "text_cfg", text, TextTower),
        quick_gelu=bool(model.get("quick_gelu")),
        has_bias=model.get("init_logit_bias") is not None,
        caption_parts=_caption_parts(model, of_conch),
        preprocess=dict(source.get("preprocess_cfg") or {}),
        text_config=dict(source.get("text_config") or {}),
        source=source,
    )
    _check_captioner(base, config)
    return config


def _caption_parts(model: dict[str, Any], of_conch: bool) -> tuple[str, ...]:
    if of_conch:
        return (_DECODER, "visual.attn_pool_caption.", "visual.ln_caption.")
    return (_DECODER,) if "multimodal_cfg" in model else ()


def _check_captioner(base: str, config: OpenClipConfig) -> None:
    """Refuse what no CoCa has."""
    if config.layout == "conch" and not (config.image.attentional_pool and config.text.embed_cls):
        folder_checks.refuse(
            base,
            f"{FILE}: a CONCH without vision_cfg.attentional_pool_contrast and text_cfg.embed_cls is not "
            f"supported: {_OTHER_BASE}",
        )
    if config.text.has_class_token and config.text.no_causal_mask:
        folder_checks.refuse(
            base, f"{FILE}: text_cfg.embed_cls: with no_causal_mask it is not supported: {_OTHER_BASE}"
        )


def _tower(base: str, section: str, options: dict[str, Any], kind: type[Any]) -> Any:
    known = {option.name: option for option in fields(kind)}
    for name, value in options.items():
        where = f"{FILE}: {section}.{name}"
        if name in _SUPPORTED and value not in _SUPPORTED[name]:
            folder_checks.refuse(base, f"{where}: {json.dumps(value)} is not supported: {_OTHER_BASE}")
        if name not in known and name not in _SUPPORTED and name not in _IGNORED:
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
