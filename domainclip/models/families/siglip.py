"""SigLIP [arXiv:2303.15343] and SigLIP 2 of fixed resolution [arXiv:2502.14786], which share a model type."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class Siglip(DualEncoder):
    """Trained on unmasked padding to a fixed length, and pooled at the last position, even in padding."""

    objective = "sigmoid"
    tokenizer_outputs = ("input_ids",)
    fixed_length = True
    # SigLIP 2 was trained on lower-cased text and its tokenizer's config has the option, but the Gemma
    # tokenizer that it names ignores it.
    applies_lower_case = True

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The last position of a text; of an image, all patches are pooled."""
        return -1 if modality == "text" else None
