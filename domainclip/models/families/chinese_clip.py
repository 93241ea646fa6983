"""Chinese-CLIP [arXiv:2211.01335]: a CLIP image tower, and a Chinese RoBERTa pooled at its first token."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class ChineseClip(DualEncoder):
    """The text tower reads all outputs of the tokenizer: it is bidirectional, so padding must be masked."""

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image."""
        return 0 if modality == "image" else None
