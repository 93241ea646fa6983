"""MetaCLIP 2 [arXiv:2507.22062]: a CLIP with a multilingual vocabulary, whose end-of-text id really is 2."""

from __future__ import annotations

from domainclip.towers.base import Towers


class Metaclip2(Towers):
    """Causal as CLIP is, hence no attention mask."""

    inputs = ("input_ids",)

    def check(self) -> None:
        """Refuse a tokenizer that ends its texts otherwise than the text tower expects."""
        super().check()
        self.check_end_of_text(self.plain.config.text_config.eos_token_id)
