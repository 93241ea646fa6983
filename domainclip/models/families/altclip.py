"""AltCLIP [arXiv:2211.06679]: CLIP's image tower, and XLM-R distilled from its text tower, nine languages."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class Altclip(DualEncoder):
    """The text tower reads all outputs of the tokenizer and masks its padding."""

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image."""
        return 0 if modality == "image" else None
