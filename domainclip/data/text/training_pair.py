"""The texts of one training pair: the input of objectives that derive further texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class ClassPrompts(Protocol):
    """The texts of a class, as a card has them; without negatives it is one class among others."""

    @property
    def positive(self) -> list[str]:
        """Texts that are true of an image of the class."""

    @property
    def negative(self) -> list[str]:
        """Texts that are true of all other images."""


@dataclass(frozen=True)
class TrainingPair:
    """The texts of one training pair, from which an objective may derive further ones."""

    text: str  # the caption that the epoch shows
    texts: tuple[str, ...]  # all captions of the item
    languages: tuple[str, ...]  # of each of `texts`, "" where unknown
    labels: tuple[str, ...]
    meta: dict[str, Any]  # the columns that the card lists
    seed: int  # of (seed, epoch, item): the only source of randomness
    # The classes that the item is labelled for, with their prompts; empty for an item without labels.
    classes: Mapping[str, ClassPrompts] = field(default_factory=dict)
