"""One guess: the key of a card, its value, and the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Guess:
    """A key of a card with the value that was guessed for it."""

    key: str  # "columns.image"
    value: Any
    reason: str  # names of columns and counts; never a value of a cell
    examples: tuple[str, ...] = ()  # values of cells: printed only on request, and never of persons
