"""`--to open_clip`: a folder that `open_clip.create_model_from_pretrained` reads."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.hf_loading import quiet
from domainclip.models.saving import reset_last_call, save_model
from domainclip.pipelines.export import open_clip_weights
from domainclip.pipelines.export.form import ExportedModel, ExportForm
from domainclip.pipelines.export.source import ExportSource

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_FAMILIES = ("clip", "metaclip_2")
_LEGACY_EOS = 2  # of the first converted CLIPs, which transformers pools at the highest id
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Activations of transformers as options of torch's GELU; the first is a switch of the whole model.
_ACTIVATIONS: dict[str, dict[str, str]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"approximate": "tanh"},
}
_REASONS = {
    "siglip": "open_clip builds it through timm, which has the published sizes alone and most of them with "
    "another GELU",
    "siglip2": "open_clip has no tower for images of any shape",
    "altclip": "open_clip has no such text tower",
    "chinese_clip": "open_clip has no such text tower",
    "vision-text-dual-encoder": "open_clip has no such towers",
}
_SNIPPET = """\
import open_clip
import torch

model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
model.eval()


@torch.no_grad()
def encode_images(images):
    return model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True).numpy()


@torch.no_grad()
def encode_texts(texts):
    return model.encode_text(tokenizer(texts), normalize=True).numpy()
"""


@dataclass(frozen=True)
class OpenClipForm(ExportForm):
    """`open_clip_config.json`, `open_clip_model.safetensors` and the tokenizer."""

    name: ClassVar[str] = "open_clip"
    hub_library: ClassVar[str] = "open_clip"
    tolerance: ClassVar[float] = 1e-5
    packages: ClassVar[str] = "open_clip_torch transformers pillow"
    snippet: ClassVar[str] = _SNIPPET

    def refusal(self, source: ExportSource) -> str:
        """A family, an activation or a preprocessing that open_clip does not have."""
        family, config = source.model.family, source.model.hf_base.config
        if family == "open_clip":  # in this form already
            return ""
        if family not in _FAMILIES:
            reason = _REASONS.get(family, "open_clip has no such towers")
            others = "transformers" if family == "siglip2" else "transformers, sentence-transformers or onnx"
            return f"family {family}: {reason}: use --to {others}"
        image, text = config.vision_config.hidden_act, config.text_config.hidden_act
        unknown = [name for name in (image, text) if name not in _ACTIVATIONS]
        if unknown or (image == "quick_gelu") != (text == "quick_gelu"):
            return f"open_clip has no pair of towers with the activations {image} and {text}"
        return _preprocessing_refusal(source.model)

    def write(self, source: ExportSource, folder: Path) -> dict[str, Any]:
        """The config, the weights under the names of open_clip, and the tokenizer."""
        model = source.model
        if model.family == "open_clip":
            save_model(model, folder)
            return {}
        config = {"model_cfg": _model(model), "preprocess_cfg": _preprocessing(model)}
        (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        save_file(
            open_clip_weights.convert(model.hf_base, model.max_tokens), folder / WEIGHTS, {"format": "pt"}
        )
        reset_last_call(model.text_tokenizer.hf_tokenizer)
        with quiet():
            model.text_tokenizer.hf_tokenizer.save_pretrained(folder)
        return {}

    def load(self, folder: Path) -> ExportedModel:
        """Through `create_model_from_pretrained`."""
        return OpenClipModel(folder)


class OpenClipModel(ExportedModel):
    """A folder as open_clip loads it."""

    def __init__(self, folder: Path) -> None:
        with _quiet():
            import open_clip

            self.library = f"open_clip {open_clip.__version__}"
            name = f"local-dir:{folder}"
            self.model, self.preprocess = open_clip.create_model_from_pretrained(name)
            self.tokenizer = open_clip.get_tokenizer(name)
        self.model.eval()

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d) float32 of unit length."""
        pixels = torch.stack([self.preprocess(image) for image in images])
        embeddings: np.ndarray = self.model.encode_image(pixels, normalize=True).numpy()
        return embeddings

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length."""
        embeddings: np.ndarray = self.model.encode_text(self.tokenizer(list(texts)), normalize=True).numpy()
        return embeddings

    @torch.no_grad()
    def scale_and_bias(self) -> tuple[float, float]:
        """As in the weights; these families have no bias."""
        return float(self.model.logit_scale.exp()), 0.0


def _preprocessing_refusal(model: DualEncoder) -> str:
    steps = model.image_preprocessor
    if steps.resample not in _RESAMPLE:
        return "open_clip resizes images bilinearly or bicubically, the model in another way"
    if abs(steps.rescale - 1 / 255) > 1e-9:
        return "open_clip divides pixels by 255, the model by another number"
    if isinstance(steps.resize, int) and steps.crop != (steps.resize, steps.resize):
        return "open_clip resizes the shortest edge to the size that it crops, the model to another one"
    if not isinstance(steps.resize, int) and steps.crop not in (None, steps.resize):
        return "open_clip does not crop images after it resized them exactly"
    return ""


def _preprocessing(model: DualEncoder) -> dict[str, Any]:
    steps = model.image_preprocessor
    return {
        "size": list(steps.size),
        "mode": "RGB",
        "mean": list(steps.mean),
        "std": list(steps.std),
        "interpolation": _RESAMPLE[steps.resample],
        "resize_mode": "shortest" if isinstance(steps.resize, int) else "squash",
    }


def _model(model: DualEncoder) -> dict[str, Any]:
    config = model.hf_base.config
    vision, text = config.vision_config, config.text_config
    patch = vision.patch_size
    return {
        "embed_dim": model.width,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": list(model.image_size),
            "patch_size": patch,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **_shared(vision),
        },
        "text_cfg": {
            "context_length": model.max_tokens,
            "vocab_size": text.vocab_size,
            "hf_tokenizer_name": ".",  # of a folder, open_clip takes the tokenizer in it
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            **_shared(text),
            **_pooling(model),
        },
    }


def _shared(tower: Any) -> dict[str, Any]:
    """Options that both towers have."""
    options: dict[str, Any] = {
        "mlp_ratio": _ratio(tower.hidden_size, tower.intermediate_size),
        "norm_kwargs": {"eps": tower.layer_norm_eps},
    }
    activation = _ACTIVATIONS[tower.hidden_act]
    return options | ({"act_kwargs": activation} if activation else {})


def _ratio(width: int, hidden: int) -> float:
    """The quotient of two sizes, from which open_clip's truncated product gives the second one back."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _pooling(model: DualEncoder) -> dict[str, Any]:
    end = model.hf_base.config.text_config.eos_token_id
    if model.family == "clip" and end == _LEGACY_EOS:
        return {"pool_type": "argmax"}
    return {"pool_type": "eos", "eos_id": end}


@contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
