"""SigLIP 2 NaFlex [arXiv:2502.14786]: images keep their aspect ratio and become a sequence of patches."""

from __future__ import annotations

import torch
from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class Siglip2(DualEncoder):
    """Text as in SigLIP; the tokenizer of this model type lower-cases by itself."""

    objective = "sigmoid"
    tokenizer_outputs = ("input_ids",)
    fixed_length = True
    accepts_hidden_states = ("text",)  # the mask of an image's real patches is made where its layers start

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The last position of a text; of an image, all patches are pooled."""
        return -1 if modality == "text" else None

    def pixel_inputs(self, image: dict[str, Tensor]) -> dict[str, Tensor]:
        """Patches (b, n, patch * patch * 3), which of them are real, and each image's rows and columns."""
        patches, grid = image["pixels"], image["grid"]
        # The three channels are innermost, so normalizing needs no tiling of mean and std.
        values = patches.reshape(*patches.shape[:2], -1, 3).float() * self.image_preprocessor.rescale
        real = torch.arange(patches.shape[1], device=grid.device) < grid.prod(dim=1, keepdim=True)
        return {
            "pixel_values": ((values - self.mean) / self.std).flatten(-2),
            "pixel_attention_mask": real.to(torch.int32),
            "spatial_shapes": grid,
        }
