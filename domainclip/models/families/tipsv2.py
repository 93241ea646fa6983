"""TIPSv2, after TIPS [arXiv:2410.16512]: images with two class tokens, texts pooled by their mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality

_UNUSED = "image/vision_model.embeddings.mask_token"  # of its pretraining: no gradient reaches it


class Tipsv2(DualEncoder):
    """The first class token is the embedding of an image. The text tower masks its padding.

    transformers stores a temperature; here it is the logarithm of its inverse, as in all other families, and
    is written back as the temperature.
    """

    def __init__(
        self, hf_model: Any, hf_tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        temperature = hf_model.temperature.detach()
        del hf_model.temperature
        hf_model.logit_scale = nn.Parameter(-torch.log(temperature.float()))
        hf_model._register_state_dict_hook(_as_temperature)
        super().__init__(hf_model, hf_tokenizer, processor, base, revision)

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The first class token of an image; of a text, all tokens are pooled."""
        return 0 if modality == "image" else None

    def set_trainable(self, patterns: list[tuple[str, float]]) -> dict[str, float]:
        """As for all families; the token of masked patches is never trained."""
        factors = super().set_trainable(patterns)
        self.weights()[_UNUSED].requires_grad_(False)
        return factors | {_UNUSED: 0.0}


def _as_temperature(_: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
    state[f"{prefix}temperature"] = torch.exp(-state.pop(f"{prefix}logit_scale"))
