"""AltCLIP [arXiv:2211.06679]: CLIP's image tower, and XLM-R taught by CLIP's text tower, nine languages."""

from __future__ import annotations

from domainclip.towers.base import Towers


class Altclip(Towers):
    """Everything the tokenizer gives goes in; the text tower masks its padding."""
