"""Chinese-CLIP [arXiv:2211.01335]: a CLIP image tower and a Chinese RoBERTa read at its first token."""

from __future__ import annotations

from domainclip.towers.base import Towers


class ChineseClip(Towers):
    """Everything the tokenizer gives goes in: the text tower sees both ways, so padding is masked."""
