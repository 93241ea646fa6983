"""The options of CONCH's own package under the names of open_clip [arXiv:2307.12914]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of captions, or without effect in that package.
_IMAGE_IGNORED = ("attentional_pool_caption", "n_queries_caption", "n_queries_contrast")
_TEXT_IGNORED = ("proj", "pooler_type")


def is_conch(model: Mapping[str, Any]) -> bool:
    """Whether a config is one of that package."""
    return "embed_dim_caption" in model


def image_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the image tower; an unknown one stays, to be refused."""
    renamed = {name: value for name, value in options.items() if name not in _IMAGE_IGNORED}
    heads, width = renamed.pop("num_heads", 12), renamed.get("width", 768)
    whole = isinstance(heads, int) and isinstance(width, int) and heads > 0
    renamed["head_width"] = width // heads if whole else heads
    renamed["attentional_pool"] = renamed.pop("attentional_pool_contrast", False)
    return renamed


def text_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the text tower: the context of that package counts the class token, open_clip's does not."""
    renamed = {name: value for name, value in options.items() if name not in _TEXT_IGNORED}
    context = renamed.get("context_length", 77)
    return {**renamed, "context_length": context - 1 if isinstance(context, int) else context}
