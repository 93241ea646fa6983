"""The preprocessing of open_clip as an image processor of transformers."""

from __future__ import annotations

import json
from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from domainclip.models import folder_checks
from domainclip.models.open_clip.config import FILE, OpenClipConfig

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLE = {"bicubic": 3, "bilinear": 2, "random": 3}  # "random" is of training; evaluation has bicubic


def image_processor(base: str, config: OpenClipConfig) -> Any:
    """The processor of the images that a checkpoint is evaluated with.

    Raises: ModelError for a step that is not supported.
    """
    options = config.preprocess
    size = options.get("size") or config.image.image_size
    height, width = size if isinstance(size, list) else (size, size)
    if (height, width) != (config.image.image_size,) * 2:
        folder_checks.refuse(
            base,
            f"{FILE}: preprocess_cfg.size: {json.dumps(size)} is not vision_cfg.image_size: correct one",
        )
    shared = {
        "resample": _named(base, options, "interpolation", "bicubic", _RESAMPLE),
        "image_mean": list(options.get("mean") or _MEAN),
        "image_std": list(options.get("std") or _STD),
    }
    if _named(base, options, "resize_mode", "shortest", {"shortest": False, "squash": True}):
        return SiglipImageProcessorPil(size={"height": height, "width": width}, **shared)
    return CLIPImageProcessorPil(
        size={"shortest_edge": height}, crop_size={"height": height, "width": width}, **shared
    )


def _named(base: str, options: dict[str, Any], key: str, default: str, known: dict[str, Any]) -> Any:
    value = options.get(key) or default
    if value not in known:
        names = " or ".join(name for name in known if name != "random")
        folder_checks.refuse(base, f"{FILE}: preprocess_cfg.{key}: {json.dumps(value)} is not {names}")
    return known[value]
