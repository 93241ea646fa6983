"""Two towers of open_clip that are no model of transformers, such as BiomedCLIP and MobileCLIP."""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.last_layer import TokenPosition, end_of_text
from domainclip.models.layers import Modality
from domainclip.models.open_clip.timm_trunk import TimmTrunk

_CLASS_TOKEN = ("CLIPVisionModel", "ViTModel")


class OpenClip(DualEncoder):
    """An encoder of transformers masks its padding; open_clip's transformer without a causal mask does not.

    Such a transformer was trained on texts padded with id 0 to its full length, which are read whole.
    """

    def __init__(
        self, hf_model: Any, hf_tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        config = hf_model.config
        self.objective = "sigmoid" if config.has_bias else "contrastive"
        self.tokenizer_outputs = None if config.text_kind == "hf" else ("input_ids",)
        self.fixed_length = config.text_kind == "bidirectional"
        # A tokenizer that open_clip takes from transformers pads with its own id.
        self.zero_padding = self.fixed_length and isinstance(hf_tokenizer, transformers.CLIPTokenizer)
        # The layers of a model of timm start at no known place; a class token stands behind the text, where
        # cached hidden states are cut.
        starts: dict[Modality, bool] = {
            "image": not isinstance(hf_model.vision_model, TimmTrunk),
            "text": config.text_kind != "class_token",
        }
        self.accepts_hidden_states = tuple(side for side, known in starts.items() if known)
        super().__init__(hf_model, hf_tokenizer, processor, base, revision)

    def pixel_inputs(self, image: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pixels, channel by channel: otherwise torch's gradient of a depthwise convolution can crash."""
        return {name: value.contiguous() for name, value in super().pixel_inputs(image).items()}

    def has_token_embeddings(self, modality: Modality) -> bool:
        """As of any tower, but for the image tower of timm: it returns pooled rows, and no hidden states."""
        no_states = modality == "image" and isinstance(self.hf_base.vision_model, TimmTrunk)
        return not no_states and super().has_token_embeddings(modality)

    def pooled_position(self, modality: Modality, batch: dict[str, Tensor]) -> TokenPosition | None:
        """The class token of an image, in towers that have one in front; the end of a causal text."""
        if modality == "image":
            return 0 if type(self.hf_base.vision_model).__name__ in _CLASS_TOKEN else None
        config = self.hf_base.config
        if config.text_kind != "causal":
            return None
        return end_of_text(
            batch["input_ids"], config.text_config.eos_token_id if config.text_pool == "eos" else None
        )
