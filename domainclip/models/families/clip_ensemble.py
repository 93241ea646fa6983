"""Several dual encoders as one [arXiv:2405.17139], that the strategy `backbone_ensemble` has made."""

from __future__ import annotations

from typing import Any, ClassVar

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.ensemble import EnsembleModel  # which registers the model type with transformers
from domainclip.models.layers import Modality
from domainclip.models.loading import family_class


class ClipEnsemble(DualEncoder):
    """The members read the same pixels and the same token ids; none of their weights is trained."""

    can_be_trained: ClassVar[bool] = False
    accepts_hidden_states = ()

    def __init__(
        self, hf_model: EnsembleModel, hf_tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        family = family_class(hf_model.config.member_family)
        self.objective = family.objective
        self.tokenizer_outputs = family.tokenizer_outputs
        self.fixed_length, self.zero_padding = family.fixed_length, family.zero_padding
        self.applies_lower_case = family.applies_lower_case
        super().__init__(hf_model, hf_tokenizer, processor, base, revision)

    def has_token_embeddings(self, modality: Modality) -> bool:
        """The members have several grids of patches, and tokens of several widths."""
        return False
