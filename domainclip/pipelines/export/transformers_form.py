"""`--to transformers`: plain weights, tokenizer and image processor, for transformers and for domainclip."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

from domainclip.evaluation import contamination, run_classes
from domainclip.models.hf_loading import quiet
from domainclip.models.saving import save_model
from domainclip.pipelines.export import record
from domainclip.pipelines.export.form import ExportedModel, ExportForm
from domainclip.pipelines.export.record import Tokenizing
from domainclip.pipelines.export.source import ExportSource

_SNIPPET = """\
import torch
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder, backend="pil")  # the same pixels on every machine
names = export["tokenizer"]["outputs"]
padding = {"padding": export["tokenizer"]["padding"], "max_length": export["tokenizer"]["max_tokens"]}


@torch.no_grad()
def encode_images(images):
    inputs = processor.image_processor(images, return_tensors="pt")
    return torch.nn.functional.normalize(model.get_image_features(**inputs).pooler_output, dim=-1).numpy()


@torch.no_grad()
def encode_texts(texts):
    inputs = processor.tokenizer(texts, truncation=True, return_tensors="pt", **padding)
    inputs = {name: inputs[name] for name in names}
    return torch.nn.functional.normalize(model.get_text_features(**inputs).pooler_output, dim=-1).numpy()
"""


@dataclass(frozen=True)
class TransformersForm(ExportForm):
    """A folder for `AutoModel`, `AutoProcessor` and `pipeline("zero-shot-image-classification")`."""

    name: ClassVar[str] = "transformers"
    hub_library: ClassVar[str] = "transformers"
    tolerance: ClassVar[float] = 1e-5
    packages: ClassVar[str] = "transformers torch pillow"
    snippet: ClassVar[str] = _SNIPPET
    pools_frames: ClassVar[bool] = True

    def write(self, source: ExportSource, folder: Path) -> dict[str, Any]:
        """The model as `save_model` writes it, and its classes for `classify`; their thresholds hold."""
        save_model(source.model, folder)
        if source.classes is not None:
            run_classes.save(folder, source.classes)
        if (source.run / contamination.FILE).is_file():  # the images that a later run must not be measured on
            shutil.copy(source.run / contamination.FILE, folder)
        return {}

    def load(self, folder: Path) -> TransformersModel:
        """Through `AutoModel` and `AutoProcessor`."""
        return TransformersModel(folder, record.load(folder).tokenizer)


class TransformersModel(ExportedModel):
    """A folder as plain transformers loads it."""

    def __init__(self, folder: Path, tokenizing: Tokenizing) -> None:
        self.library = f"transformers {transformers.__version__}"
        self.tokenizing = tokenizing
        with quiet():
            self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
            self.processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d) float32 of unit length."""
        inputs = self.processor.image_processor(list(images), return_tensors="pt")
        return _unit(self.model.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length."""
        batch = self.processor.tokenizer(
            list(texts),
            padding=self.tokenizing.padding,
            truncation=True,
            max_length=self.tokenizing.max_tokens,
            return_tensors="pt",
        )
        inputs = {name: batch[name] for name in self.tokenizing.outputs}
        return _unit(self.model.get_text_features(**inputs).pooler_output)

    @torch.no_grad()
    def scale_and_bias(self) -> tuple[float, float]:
        """As in the weights."""
        bias = getattr(self.model, "logit_bias", None)  # only families of the sigmoid loss have one
        return float(self.model.logit_scale.exp()), 0.0 if bias is None else float(bias)


def _unit(rows: torch.Tensor) -> np.ndarray:
    unit: np.ndarray = F.normalize(rows.float(), dim=-1).numpy()
    return unit
