"""Captions that stand for pictures: those of another item with the same labels. [arXiv:2211.12739]"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domainclip import seeding

if TYPE_CHECKING:
    from datasets import Dataset


def substitute_captions(items: Dataset, seed: int) -> list[str]:
    """For each item the first caption of another one with exactly its labels; its own where there is none."""
    labels = [frozenset(own) for own in items["labels"][:]]
    texts = [next(filter(None, own), "") for own in items["texts"][:]]
    alike: defaultdict[frozenset[str], list[int]] = defaultdict(list)
    place = []
    for row, own in enumerate(labels):
        place.append(len(alike[own]))
        alike[own].append(row)
    return [
        texts[_other(row, alike[own] if own else [row], place[row], seed)] for row, own in enumerate(labels)
    ]


def _other(row: int, alike: list[int], place: int, seed: int) -> int:
    if len(alike) == 1:
        return row
    drawn = seeding.stable(seed, row, "stands in") % (len(alike) - 1)
    return alike[drawn + (drawn >= place)]
