"""Further images of each pair that objectives ask for: second views, mixed images, masked images.

They follow the images of the pairs, one whole group after the other. All draws are functions of seed, step
and item, so that they are the same in any number of processes.

Legend: b pairs of this process, h by w pixels, n patches, c numbers of a patch.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip import seeding
from domainclip.data.batching.batch import Batch
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.patch_embeddings import patch_grid
from domainclip.objectives.base import PATCH_GRID, PATCH_NUMBERS

MIXED, MASKED, PIXELS = "mixed_image", "masked_tokens", "patch_pixels"  # views of objectives
_MASKED_SHARE = 0.5  # of the patches of a masked image


@dataclass(frozen=True)
class FurtherImages:
    """The images of a batch with all that follow them."""

    image: dict[str, Tensor]  # b rows for the pairs, then b for each of `groups`
    groups: tuple[str, ...] = ()  # views of objectives, in their order
    share: Tensor | None = None  # (b,) fp32: of its own image in a mixed one
    patch_mask: Tensor | None = None  # (b, n) bool: the masked patches
    patch_pixels: Tensor | None = None  # (b, n, c), as in `Views`


def partners(pairs: int, device: torch.device | None = None) -> Tensor:
    """(b,) the pair whose image each is mixed with: neighbours, two by two; an odd last one itself."""
    index = torch.arange(pairs, device=device)
    other = index ^ 1
    return torch.where(other < pairs, other, index)


def add_further_images(
    rows: Batch, needs: Set[str], model: DualEncoder, seed: int, step: int
) -> FurtherImages:
    """The images of a batch, with those that objectives need; pixels (b, h, w, 3) uint8."""
    assert rows.image is not None
    parts, groups = [rows.image], list[str]()
    share = mask = of_patches = None
    keys = [seeding.stable(seed, step, index) for index in rows.index.tolist()]
    if rows.second_view is not None:
        parts, groups = [*parts, rows.second_view], [*groups, "image_2"]
    if MIXED in needs:
        mixed, share = mix_images(rows.image["pixels"], keys)
        parts, groups = [*parts, {"pixels": mixed}], [*groups, MIXED]
    if MASKED in needs:
        mean = [round(255 * value) for value in model.image_preprocessor.mean]
        masked, mask = mask_patches(rows.image["pixels"], keys, patch_grid(model), mean)
        parts, groups = [*parts, {"pixels": masked}], [*groups, MASKED]
    if PIXELS in needs:
        of_patches = patch_pixels(rows.image["pixels"], model)
    image = {name: torch.cat([part[name] for part in parts]) for name in rows.image} if groups else rows.image
    return FurtherImages(image, tuple(groups), share, mask, of_patches)


def patch_pixels(pixels: Tensor, model: DualEncoder) -> Tensor:
    """(b, n, c) fp32 of images (b, h, w, 3) uint8: each patch averaged over a grid, colours normalised."""
    rows, columns = patch_grid(model)
    preprocessor = model.image_preprocessor
    mean, std = torch.tensor(preprocessor.mean), torch.tensor(preprocessor.std)
    scaled = (pixels.float() * preprocessor.rescale - mean) / std
    scaled = scaled.permute(0, 3, 1, 2)  # (b, 3, h, w)
    height, width = scaled.shape[-2] // rows, scaled.shape[-1] // columns
    whole = scaled[..., : rows * height, : columns * width]
    cells = whole.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # (b, 3, rows, p, columns, q)
    patches = cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    grid = F.adaptive_avg_pool2d(patches, PATCH_GRID)
    return grid.reshape(len(pixels), rows * columns, PATCH_NUMBERS)


def mix_images(pixels: Tensor, keys: list[int]) -> tuple[Tensor, Tensor]:
    """(b, h, w, 3) each image with a box of its partner's, and (b,) the share that is left of its own.

    The share is drawn evenly, and the box lies anywhere, cut at the edges: CutMix [arXiv:1905.04899].
    """
    b, height, width = pixels.shape[:3]
    mixed, share, other = pixels.clone(), torch.ones(b), partners(b).tolist()
    for row, key in enumerate(keys):
        draw = np.random.Generator(np.random.Philox(key=seeding.stable(key, "mixed")))
        side = float(np.sqrt(draw.random()))
        middle = draw.random(2) * (height, width)
        top, bottom = (int(np.clip(middle[0] + half * height * side, 0, height)) for half in (-0.5, 0.5))
        left, right = (int(np.clip(middle[1] + half * width * side, 0, width)) for half in (-0.5, 0.5))
        mixed[row, top:bottom, left:right] = pixels[other[row], top:bottom, left:right]
        share[row] = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, share


def mask_patches(
    pixels: Tensor, keys: list[int], grid: tuple[int, int], color: list[int]
) -> tuple[Tensor, Tensor]:
    """(b, h, w, 3) images of which half of the patches have the mean colour, and (b, n) bool which."""
    b, height, width = pixels.shape[:3]
    count = grid[0] * grid[1]
    mask = torch.zeros(b, count, dtype=torch.bool)
    for row, key in enumerate(keys):
        draw = np.random.Generator(np.random.Philox(key=seeding.stable(key, "masked")))
        mask[row, torch.from_numpy(draw.permutation(count)[: round(_MASKED_SHARE * count)])] = True
    of_pixels = mask.reshape(b, *grid).repeat_interleave(height // grid[0], 1)
    of_pixels = of_pixels.repeat_interleave(width // grid[1], 2)
    covered = torch.zeros(b, height, width, dtype=torch.bool)
    covered[:, : of_pixels.shape[1], : of_pixels.shape[2]] = of_pixels
    filled = torch.tensor(color, dtype=pixels.dtype).expand_as(pixels)
    return torch.where(covered[..., None], filled, pixels), mask
