"""Load the components of a checkpoint with transformers: safetensors only, no remote code, fp32 weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

# Processors that transformers has for torchvision alone: one of the Pillow backend with the same steps, and
# their defaults.
_WITHOUT_PILLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "Tipsv2ImageProcessor": (
        "SiglipImageProcessorPil",
        {"size": {"height": 448, "width": 448}, "resample": 2, "do_normalize": False},
    )
}


def load_hf_model(folder: Path, weights: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and a report of the weights that its files lack: those are initialized at random.

    `folder` holds its config, `weights` its safetensors.
    """
    if weights != folder:
        options["config"] = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model, report = transformers.AutoModel.from_pretrained(
        weights,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    return model, report


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_image_processor(folder: Path) -> Any:
    """The image processor, of the Pillow backend, which gives the same pixels on every machine.

    Raises: ValueError for a type of processor that transformers does not have.
    """
    declared = _declared_processor(folder)
    if declared is None:
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    # Versions before 4.26 called it CLIPFeatureExtractor, and some later ones wrote that name anew.
    kind = re.sub("(Fast|Pil)$", "", declared).replace("FeatureExtractor", "ImageProcessor")
    if kind in _WITHOUT_PILLOW:
        name, defaults = _WITHOUT_PILLOW[kind]
        return getattr(transformers, name)(**{**defaults, **_processor_options(folder)})
    processor = getattr(transformers, f"{kind}Pil", None) if kind.endswith("ImageProcessor") else None
    if processor is None:
        raise ValueError(
            f"image_processor_type {declared} is unknown: write that of its family, as CLIPImageProcessor"
        )
    return processor.from_pretrained(folder)


def _declared_processor(folder: Path) -> str | None:
    """The type that the config of the image processor names; None: it is that of the model's family."""
    config = _processor_options(folder)
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    return kind if isinstance(kind, str) else None


def _processor_options(folder: Path) -> dict[str, Any]:
    """The options of the image processor: those of the first file that names its type."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            config = json.loads((folder / name).read_text(encoding="utf-8-sig"))
            config = config if name == "preprocessor_config.json" else config.get("image_processor", {})
            if isinstance(config.get("image_processor_type") or config.get("feature_extractor_type"), str):
                return dict(config)
    return {}


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars and no warnings; its faults become errors elsewhere."""
    log = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
