"""An image model without a text tower, such as a ViT or DINOv2, as a teacher of objectives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files, folder_checks, hf_loading, loading, parameters
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.hf_loading import quiet
from domainclip.models.image_preprocessor import ImagePreprocessor


class ImageModel(nn.Module):
    """A frozen model that pools an image with its own pooler, or else takes the first token."""

    mean: Tensor
    std: Tensor

    def __init__(self, hf_model: Any, processor: Any, name: str) -> None:
        super().__init__()
        self.hf_model = hf_model.requires_grad_(False)
        self.image_preprocessor = ImagePreprocessor.of(processor, f'image model "{name}"')
        self.register_buffer("mean", torch.tensor(self.image_preprocessor.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.image_preprocessor.std), persistent=False)

    def encode_image(self, image: dict[str, Tensor]) -> Tensor:
        """(b, t) fp32 of unit length, from stacked outputs of `image_preprocessor`."""
        pixels = image["pixels"].permute(0, 3, 1, 2).float() * self.image_preprocessor.rescale
        out = self.hf_model(pixel_values=(pixels - self.mean[:, None, None]) / self.std[:, None, None])
        pooled = getattr(out, "pooler_output", None)
        rows = out.last_hidden_state[:, 0] if pooled is None else pooled
        return F.normalize(rows.float(), dim=-1)

    def frozen_fingerprint(self, modality: str) -> str:
        """Cache key of embeddings of these weights."""
        return parameters.module_fingerprint(self.hf_model)


def load_image_model(name: str) -> DualEncoder | ImageModel:
    """The image model in a folder or on the Hub; of a CLIP, the dual encoder.

    Raises: ModelError in one line, for whatever cannot be found, read or used.
    """
    try:
        folder, commit = checkpoint_files.find_checkpoint(name, None)
        folder_checks.check_folder(name, folder, on_hub=commit is not None)
        checkpoint_files.require_files(name, folder, "model", ("config.json",))
        if _model_type(folder) in loading.families():
            return loading.load_model(name).requires_grad_(False)
        checkpoint_files.require_files(name, folder, "image processor", checkpoint_files.PROCESSORS)
        weights = checkpoint_files.find_weights(name, folder, commit)
    except ModelError as error:
        raise ModelError(str(error).replace('base "', 'image model "', 1)) from None
    try:
        with quiet():
            hf_model, report = hf_loading.load_hf_model(folder, weights)
            processor = hf_loading.load_image_processor(folder)
    except Exception as error:
        reason = checkpoint_files.in_one_line(error)
        raise ModelError(f'image model "{name}": cannot be read: {reason}') from None
    missing = [weight for weight in report["missing_keys"] if "pooler" not in weight]
    if missing:
        raise ModelError(f'image model "{name}": its file has no weight "{min(missing)}"')
    return _checked(ImageModel(hf_model, processor, name).eval(), bool(report["missing_keys"]), name)


@torch.no_grad()
def _checked(model: ImageModel, lacks_pooler: bool, name: str) -> ImageModel:
    if lacks_pooler:  # its pooler was initialized at random: the first token instead
        model.hf_model.pooler = None
    height, width = model.image_preprocessor.size
    try:
        rows = model.encode_image({"pixels": torch.zeros(1, height, width, 3, dtype=torch.uint8)})
    except Exception as error:
        raise ModelError(
            f'image model "{name}": returns no vector of an image: {checkpoint_files.in_one_line(error)}'
        ) from None
    if rows.ndim != 2:
        raise ModelError(f'image model "{name}": returns no vector of an image; use a ViT, or a CLIP')
    return model


def _model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(dict(config).get("model_type")).replace("-", "_")
    except (ValueError, TypeError):
        raise ModelError(f'base "{folder}": its config.json cannot be read') from None
