"""Text-guided patches: the pixels that are hidden of an image are reconstructed with the help of its caption.

Legend: b pairs, r those of this process, n patches, l words, d width, c numbers of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.errors import RecipeError
from domainclip.models import caption_decoder
from domainclip.models.caption_decoder import DecoderShape, norm
from domainclip.objectives.base import PATCH_NUMBERS, Negatives, Objective, Sizes, Views


@dataclass(frozen=True, kw_only=True)
class TextGuidedPatches(Objective):
    """1/b Σ_i 1/m Σ_{t of m masked} ‖ĉ_it − c_it‖² / c, ĉ read from the masked image and the caption: SyCoCa.

    Half of the patches of an image have its mean colour. Their pixels c_it, averaged over a grid of 4 by 4 in
    the patch, are reconstructed by a transformer over the patches of that image with cross-attention to the
    words of its caption [arXiv:2401.02137]. Its counterpart is `captioning`, which predicts the words from
    the patches; use both beside `contrastive`. Of the masked patches those count that the caption is about,
    the share `nearest` of them by the cosine of caption and patch in the whole image: attentive masking.
    Differs: the patches to mask are drawn, since which ones the caption is about is known only behind the
    tower; the mask covers pixels and learns no token, so that it suits every base with a plain image tower;
    and `captioning` reads the whole image. Cost: each image is encoded once more. The decoder is used in
    training alone. Of a caption without words, the image is all that is read.
    """

    citation: ClassVar[str] = "arXiv:2401.02137"
    negatives: ClassVar[Negatives] = "none"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"masked_tokens", "image_tokens", "text_tokens", "patch_pixels"}
    )

    layers: Annotated[int, Field(ge=1)] = 1  # of the decoder
    width: Annotated[int, Field(ge=1)] = 128  # of the decoder
    heads: Annotated[int, Field(ge=1)] = 4  # of each attention; they share `width` equally
    nearest: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the masked patches that count
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the decoder

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise RecipeError(
                f"objectives.text_guided_patches.width: {self.width} is no multiple of heads, {self.heads}: "
                f"take {self.heads * (self.width // self.heads + 1)}"
            )

    @property
    def shape(self) -> DecoderShape:
        """The size of the decoder."""
        return DecoderShape(self.layers, self.heads, self.width, None)

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the decoder."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """The weights of the decoder."""
        draw = torch.Generator().manual_seed(seed)

        def matrix(*lengths: int) -> Tensor:
            drawn: Tensor = torch.randn(*lengths, generator=draw) / sqrt(lengths[-1])
            return drawn

        return {
            "patches": matrix(self.width, sizes.width),
            "words": matrix(self.width, sizes.width),
            "masked": 0.02 * torch.randn(self.width, generator=draw),  # added to a masked patch
            "no_word": 0.02 * torch.randn(self.width, generator=draw),  # stands before the words
            **caption_decoder.layer_weights(self.shape, matrix),
            "pixels": matrix(PATCH_NUMBERS, self.width),
            # Of the layers, the patches, the words and the output; as their difference to 1.
            "norms": torch.zeros(3 * self.layers + 3, self.width),
        }

    def __call__(self, views: Views) -> Tensor:
        """A scalar: squared error, where 1 is the variance of the pixels that the base was trained on."""
        assert views.patch_pixels is not None  # the run fills what `needs` names
        assert views.patch_mask is not None
        local = views.local_slice
        error = (self._reconstructed(views) - views.patch_pixels[local]).square().mean(dim=-1)  # (r, n)
        counted = self._counted(views)
        per_pair: Tensor = (error * counted).sum(dim=1) / counted.sum(dim=1)
        return per_pair.mean()

    def _counted(self, views: Views) -> Tensor:
        """(r, n) bool: of the masked patches, those that are nearest to the caption."""
        assert views.image_tokens is not None
        assert views.patch_mask is not None
        local = views.local_slice
        mask = views.patch_mask[local]
        cosine = torch.einsum("rnd,rd->rn", views.image_tokens[local].detach(), views.text[local].detach())
        count = max(1, round(self.nearest * int(mask.sum(dim=1).min())))
        nearest = cosine.masked_fill(~mask, -torch.inf).topk(count, dim=1).indices
        return torch.zeros_like(mask).scatter(1, nearest, value=True)

    def _reconstructed(self, views: Views) -> Tensor:
        """(r, n, c)."""
        assert views.masked_tokens is not None
        assert views.text_tokens is not None
        assert views.text_mask is not None
        assert views.patch_mask is not None
        local, d = views.local_slice, views.masked_tokens.shape[-1]
        patches, words = views.masked_tokens[local], views.text_tokens[local]
        weights = {name: weight.to(patches.dtype) for name, weight in views.own_weights.items()}
        norms = weights["norms"]
        hidden = norm(patches @ weights["patches"][:, :d].T, norms[-3])
        hidden = hidden + views.patch_mask[local][..., None] * weights["masked"]
        memory = norm(words @ weights["words"][:, :d].T, norms[-2])
        memory = torch.cat([weights["no_word"].expand(len(memory), 1, -1), memory], dim=1)
        readable = F.pad(views.text_mask[local], (1, 0), value=True)[:, None, None]  # (r, 1, 1, 1 + l)
        hidden = caption_decoder.run_layers(weights, self.shape, hidden, memory, None, readable)
        return norm(hidden, norms[-1]) @ weights["pixels"].T
