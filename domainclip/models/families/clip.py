"""CLIP [arXiv:2103.00020]: a causal text tower that is pooled at its end-of-text token."""

from __future__ import annotations

import logging

from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition, end_of_text
from domainclip.models.layers import Modality

_log = logging.getLogger("domainclip")
_LEGACY_EOS = 2


class Clip(DualEncoder):
    """No attention mask: what follows the end-of-text token cannot reach it, so padding changes nothing."""

    tokenizer_outputs = ("input_ids",)

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image, the end of a text."""
        if modality == "image":
            return 0
        end = self.hf_base.text_model.eos_token_id
        return end_of_text(batch["input_ids"], None if end == _LEGACY_EOS else end)

    def check(self) -> None:
        """Refuse an end-of-text id that pools the wrong token; warn when the activations differ."""
        super().check()
        config = self.hf_base.config
        eos = config.text_config.eos_token_id
        # The first converted checkpoints have a wrong id 2, for which transformers pools at the highest id.
        self.check_end_of_text(len(self.text_tokenizer.hf_tokenizer) - 1 if eos == _LEGACY_EOS else eos)
        image, text = config.vision_config.hidden_act, config.text_config.hidden_act
        if image != text:
            _log.warning(
                'base "%s": its towers use different activations, %s for images and %s for text; '
                "make sure that config.json names those it was trained with",
                *(self.base, image, text),
            )
