"""AltCLIP [arXiv:2211.06679]: CLIP's image tower, and XLM-R taught by CLIP's text tower, nine languages."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class Altclip(DualEncoder):
    """Everything the tokenizer gives goes in; the text tower masks its padding."""

    def pooled_position(self, part: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of a picture."""
        return 0 if part == "image" else None
