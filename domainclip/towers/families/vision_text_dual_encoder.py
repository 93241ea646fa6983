"""Any image tower and any text tower joined by two projections, as in LiT [arXiv:2111.07991]."""

from __future__ import annotations

from domainclip.towers.base import Towers


class VisionTextDualEncoder(Towers):
    """Everything the tokenizer gives goes in; the text tower masks its padding."""
