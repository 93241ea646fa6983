"""The size of the images that a tower reads, and the share of their patches that training leaves out.

Shapes: n patches, w width of a tower.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.patch_dropout import PatchDropout


def interpolate_positions(table: Tensor, first: int, side: int) -> Tensor:
    """(first + side², w) of (first + n, w): the first rows unchanged, the others as a grid, bicubic."""
    patches = table[first:]
    before = round(len(patches) ** 0.5)
    grid = patches.T.reshape(1, table.shape[1], before, before)
    grown = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([table[:first], grown.flatten(2)[0].T])


def set_image_size(model: DualEncoder, size: int) -> None:
    """Adapt positions, config and preprocessing to square images of `size` pixels.

    Raises: ModelError for a tower without a table of positions, or a size that is no multiple of its patches.
    """
    embeddings = _embeddings(model)
    patch = int(embeddings.patch_size)
    if size % patch:
        model.refuse(
            f"image_size {size} is no multiple of its patches of {patch} pixels: take "
            f"{size // patch * patch} or {(size // patch + 1) * patch}"
        )
    table, side = embeddings.position_embedding.weight.detach(), size // patch
    first = len(table) - int(embeddings.num_patches)
    positions = interpolate_positions(table, first, side)
    embeddings.position_embedding = nn.Embedding.from_pretrained(positions, freeze=False)
    embeddings.image_size, embeddings.num_patches, embeddings.num_positions = size, side**2, len(positions)
    numbers = torch.arange(len(positions), device=positions.device).expand((1, -1))
    embeddings.register_buffer("position_ids", numbers, persistent=False)
    whole = model.hf_base.config.vision_config
    for config in {id(one): one for one in (whole, getattr(model.tower("image"), "config", whole))}.values():
        config.image_size = size
    _set_preprocessing(model, size)


def drop_patches(model: DualEncoder, share: float) -> None:
    """Let training leave out a share of the patches of each image: FLIP [arXiv:2212.00794].

    Raises: ModelError for a tower whose patches do not form one grid.
    """
    embeddings = _embeddings(model)
    patches = int(embeddings.num_patches)
    first = embeddings.position_embedding.num_embeddings - patches
    model.patch_dropout = PatchDropout(first, patches, share)
    embeddings.register_forward_hook(model.patch_dropout)


def _embeddings(model: DualEncoder) -> Any:
    found = getattr(model.tower("image"), "embeddings", None)
    table = getattr(found, "position_embedding", None)
    if model.image_preprocessor.patch or not isinstance(table, nn.Embedding):
        model.refuse("its image tower has no table of positions for one size: choose another strategy")
    return found


def _set_preprocessing(model: DualEncoder, size: int) -> None:
    """Resize and crop to the new size, in the proportion of the two that the processor has."""
    processor = model.hf_image_processor
    crop = dict(processor.crop_size)["height"] if processor.do_center_crop else None
    before = dict(processor.size)
    if "shortest_edge" in before:
        processor.size = {"shortest_edge": round(before["shortest_edge"] * size / crop) if crop else size}
    else:
        processor.size = {"height": size, "width": size}
    if crop is not None:
        processor.crop_size = {"height": size, "width": size}
    model.image_preprocessor = ImagePreprocessor.of(processor, f'base "{model.base}"')
    model.image_size = model.image_preprocessor.size
