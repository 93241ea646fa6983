"""Any image tower and any text tower joined by two projections, as in LiT [arXiv:2111.07991]."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality

_CLASS_TOKEN = ("CLIPVisionModel", "ChineseCLIPVisionModel", "ViTModel")


class VisionTextDualEncoder(DualEncoder):
    """The text tower reads all outputs of the tokenizer and masks its padding."""

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image, in towers that are known to have one in front."""
        known = type(self.hf_base.vision_model).__name__ in _CLASS_TOKEN
        return 0 if modality == "image" and known else None
