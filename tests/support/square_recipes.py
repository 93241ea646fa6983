"""Recipes on the squares that a test has drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainclip.config import loading

_CORPUS = (
    "corpus={{path: {corpus}, min_items: 1, templates: ['a {{}} square'], privacy: {{identifiers: none}}, "
    "columns: {{image: file_name, texts: text, labels: label, group: group_id, split: split}}}}"
)


def square_recipe(name: str, base: Path, corpus: Path, *changes: str) -> Any:
    """The built-in recipe of this name, with these squares and few resamples."""
    given = [f"base.path={base}", _CORPUS.format(corpus=corpus), "evaluate.bootstrap_samples=100", *changes]
    return loading.load_recipe(name, given)
