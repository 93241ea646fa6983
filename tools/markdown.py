"""Paragraphs and tables of Markdown, for the generated pages."""

from __future__ import annotations

import re


def table_row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return paragraph(text).replace("|", "\\|").replace("\n", " ")


def paragraph(text: str) -> str:
    """A paragraph that Markdown shows as it is; code stays code, and papers on arXiv become links."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    marks = r"([*<>\[\]]|(?<!\w)_|_(?!\w))"
    shown = "".join(one if i % 2 else re.sub(marks, r"\\\1", one) for i, one in enumerate(pieces))
    shown = re.sub(r"\\\[(arXiv:\d{4}\.\d{4,5})\\\]", r"\1", shown)
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", shown)
