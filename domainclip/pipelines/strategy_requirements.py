"""What a strategy wants of a run beside its weights: several pictures or none, classes, longer texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from domainclip.components import Components
from domainclip.data.corpus import Corpus
from domainclip.models.dual_encoder import DualEncoder


def frames(strategy: Any, base: DualEncoder) -> int:
    """How many pictures of an item are shown at once."""
    return max(base.frames, getattr(strategy, "frames", 1))


def reads(strategy: Any, base: DualEncoder) -> int:
    """How many tokens of a text the towers will read."""
    return strategy.reads(base) if hasattr(strategy, "reads") else base.max_tokens


def told(parts: Components, corpus: Corpus) -> Components:
    """The parts; a strategy that learns something for each class, and names none, is told the corpus's."""
    strategy: Any = parts.strategy
    if getattr(strategy, "classes", None) != []:
        return parts
    return replace(parts, strategy=replace(strategy, classes=list(corpus.classes)))
