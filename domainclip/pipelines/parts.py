"""Parts of a long work, for the jobs of an array: `--part 3/8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from domainclip.errors import RecipeError


@dataclass(frozen=True)
class Part:
    """One part; which pieces it does follows from its number alone."""

    number: int  # from 1
    count: int

    def has(self, piece: int) -> bool:
        """Whether this part does the piece of this number, from 0."""
        return piece % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(text: str | None) -> Part | None:
    """The part of for example `3/8`; None for None.

    Raises: RecipeError.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise RecipeError("--part: not a part: write --part 1/8 to --part 8/8")
    return Part(int(match[1]), int(match[2]))
