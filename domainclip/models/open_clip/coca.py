"""The two towers of a CoCa [arXiv:2205.01917] or CONCH [arXiv:2307.12914], without what only writes captions.

A caption decoder reads rows of the towers' last layers. Those change when the towers are adapted, and the
decoder would no longer fit: it is left out, and so are the pooling and the queries that serve it alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from domainclip.models.open_clip.config import OpenClipConfig

_log = logging.getLogger("domainclip")
_DECODER = "text_decoder."
_POSITIONS, _CLASS_TOKEN = "text.positional_embedding", "text.cls_emb"


def pool_name(config: OpenClipConfig) -> str:
    """The name of the pooling whose rows are compared with those of texts."""
    return "visual.attn_pool_contrast" if config.layout == "conch" else "visual.attn_pool"


def contrastive_weights(
    base: str, config: OpenClipConfig, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of the towers: one query, and the class token's embedding and position as one.

    Raises: KeyError with the name of a weight that is missing.
    """
    if config.caption_parts and any(name.startswith(_DECODER) for name in weights):
        _report_decoder(base)
    towers = {name: value for name, value in weights.items() if not name.startswith(config.caption_parts)}
    if config.image.has_attention_pool:
        query = f"{pool_name(config)}.query"
        towers[query] = towers[query][:1]
    if config.text.has_class_token:
        positions = towers[_POSITIONS]
        towers[_CLASS_TOKEN] = towers[_CLASS_TOKEN] + positions[-1]
        towers[_POSITIONS] = positions[:-1]
    return towers


def with_class_position(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a position of the class token, which is zero, since its embedding contains it."""
    positions = weights[_POSITIONS]
    return {**weights, _POSITIONS: torch.cat([positions, torch.zeros_like(positions[:1])])}


def saved_source(source: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """The config under which the towers are saved: open_clip builds two towers from it, and no decoder."""
    saved: dict[str, Any] = json.loads(json.dumps(source))
    model = saved.get("model_cfg", saved)
    if layout == "conch":  # whose package requires the section, and builds no decoder without layers
        model["multimodal_cfg"] = {**model.get("multimodal_cfg", {}), "layers": 0}
        model["vision_cfg"] |= {"attentional_pool_caption": False, "n_queries_contrast": 1}
        return saved
    if model.pop("multimodal_cfg", None) is not None:
        model["custom_text"] = True
        model.pop("pad_id", None)  # of the decoder
    for tower in (model["vision_cfg"], model["text_cfg"]):
        tower.pop("output_tokens", None)  # which the decoder reads
    if model["vision_cfg"].get("attentional_pool"):
        model["vision_cfg"]["attn_pooler_queries"] = 1
    return saved


@cache
def _report_decoder(base: str) -> None:
    """Once for each base, since a run loads it twice."""
    _log.warning(
        'base "%s": its caption decoder is left out, since it does not fit adapted towers: for captions, add '
        "the objective captioning",
        base,
    )
