"""Chinese-CLIP [arXiv:2211.01335]: a CLIP image tower and a Chinese RoBERTa read at its first token."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class ChineseClip(DualEncoder):
    """Everything the tokenizer gives goes in: the text tower sees both ways, so padding is masked."""

    def pooled_position(self, part: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of a picture."""
        return 0 if part == "image" else None
