"""An image model alone, such as a ViT or DINOv2, for objectives that learn from what it says of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files, hf_loading, parameters
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.loading import families
from domainclip.models.loading import load_model as load_towers
from domainclip.models.saving import quiet


class ImageModel(nn.Module):
    """Pools a picture as its own model does, or else takes its first token; nothing in it learns."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__()
        self.hf_model = model.requires_grad_(False)
        self.image_preprocessor = ImagePreprocessor.of(processor, f'image model "{name}"')
        self.register_buffer("mean", torch.tensor(self.image_preprocessor.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.image_preprocessor.std), persistent=False)

    def encode_image(self, image: dict[str, Tensor]) -> Tensor:
        """(b, t) fp32 of unit length, from the stacked uint8 output of `preprocess`."""
        pixels = image["pixels"].permute(0, 3, 1, 2).float() * self.image_preprocessor.rescale
        out = self.hf_model(pixel_values=(pixels - self.mean[:, None, None]) / self.std[:, None, None])
        pooled = getattr(out, "pooler_output", None)
        rows = out.last_hidden_state[:, 0] if pooled is None else pooled
        return F.normalize(rows.float(), dim=-1)

    def frozen_fingerprint(self, part: str) -> str:
        """A key for what is computed with these weights."""
        return parameters.module_fingerprint(self.hf_model)


def load_image_model(name: str) -> DualEncoder | ImageModel:
    """The image model in a folder or on the Hub; of a CLIP, its towers.

    Raises: ModelError in one line, for whatever cannot be found, read or used.
    """
    try:
        folder, _ = checkpoint_files.find_checkpoint(name, None)
        checkpoint_files.require_files(name, folder, "model", ("config.json",))
        if _model_type(folder) in families():
            return load_towers(name).requires_grad_(False)
        checkpoint_files.require_files(name, folder, "weights", checkpoint_files.WEIGHTS)
        checkpoint_files.require_files(name, folder, "image processor", checkpoint_files.PROCESSORS)
    except ModelError as error:
        raise ModelError(str(error).replace('base "', 'image model "', 1)) from None
    try:
        with quiet():
            model, report = hf_loading.load_hf_model(folder)
            processor = hf_loading.load_image_processor(folder)
    except Exception as error:
        reason = checkpoint_files.in_one_line(error)
        raise ModelError(f'image model "{name}": cannot be read: {reason}') from None
    missing = [weight for weight in report["missing_keys"] if "pooler" not in weight]
    if missing:
        raise ModelError(f'image model "{name}": its file has no weight "{min(missing)}"')
    return _checked(ImageModel(model, processor, name).eval(), bool(report["missing_keys"]), name)


@torch.no_grad()
def _checked(tower: ImageModel, unpooled: bool, name: str) -> ImageModel:
    if unpooled:  # a pooler that was drawn says nothing: the first token instead
        tower.hf_model.pooler = None
    height, width = tower.image_preprocessor.size
    try:
        rows = tower.encode_image({"pixels": torch.zeros(1, height, width, 3, dtype=torch.uint8)})
    except Exception as error:
        raise ModelError(
            f'image model "{name}": gives no vector of a picture: {checkpoint_files.in_one_line(error)}'
        ) from None
    if rows.ndim != 2:
        raise ModelError(f'image model "{name}": gives no vector of a picture; take a ViT, or a CLIP')
    return tower


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text()).get("model_type")).replace("-", "_")
    except ValueError:
        raise ModelError(f'base "{folder}": its config.json cannot be read') from None
