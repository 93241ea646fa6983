"""The texts of one training pair: the input of objectives that derive further texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingPair:
    """The texts of one training pair, from which an objective may derive further ones."""

    text: str  # the caption that the epoch shows
    texts: tuple[str, ...]  # all captions of the item
    languages: tuple[str, ...]  # of each of `texts`, "" where unknown
    labels: tuple[str, ...]
    meta: dict[str, Any]  # the columns that the card lists
    seed: int  # of (seed, epoch, item): the only source of randomness
