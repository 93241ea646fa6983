"""MetaCLIP 2 [arXiv:2507.22062]: a CLIP with a multilingual vocabulary, whose end-of-text id really is 2."""

from __future__ import annotations

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition, end_of_text
from domainclip.models.layers import Modality


class Metaclip2(DualEncoder):
    """Causal as CLIP is, hence no attention mask."""

    tokenizer_outputs = ("input_ids",)

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image, the end of a text."""
        if modality == "image":
            return 0
        return end_of_text(batch["input_ids"], self.hf_base.text_model.eos_token_id)

    def check(self) -> None:
        """Refuse a tokenizer that ends its texts with another id than the text tower expects."""
        super().check()
        self.check_end_of_text(self.hf_base.config.text_config.eos_token_id)
