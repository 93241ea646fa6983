"""SigLIP [arXiv:2303.15343] and SigLIP 2 of fixed resolution [arXiv:2502.14786], which share a model type."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition
from domainclip.models.layers import Modality


class Siglip(DualEncoder):
    """Trained on unmasked padding to a fixed length and read at the last position, be it padding."""

    objective = "sigmoid"
    inputs = ("input_ids",)
    fixed_length = True

    def pooled_position(self, part: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The last place of a text; a picture's patches are all read."""
        return -1 if part == "text" else None

    def clean(self, texts: list[str]) -> list[str]:
        """Lower case where the checkpoint asks for it.

        SigLIP 2 was trained on lower-cased text and says so in its tokenizer's config, but the Gemma
        tokenizer that it names ignores that option.
        """
        lower = self.tokenizer.init_kwargs.get("do_lower_case", False)
        return [text.lower() for text in texts] if lower else texts
