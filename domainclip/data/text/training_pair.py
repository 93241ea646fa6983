"""One training pair as text: the input of objectives that derive further texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingPair:
    """One training pair as words: all that an objective may make further texts of."""

    text: str  # the caption that this epoch shows
    texts: tuple[str, ...]  # all captions of the item
    languages: tuple[str, ...]  # of each of `texts`, "" where unknown
    labels: tuple[str, ...]
    meta: dict[str, Any]  # what the card lists
    seed: int  # of (seed, epoch, item): draw from this and nothing else
