"""Everyday captions: general sentences from word lists that were written for this project.

Words of a vocabulary hold the names of classes; what people write about photos of everyday life, and search
them by, is held by sentences of that form. The lists are English, and lie in everyday_captions.yaml.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import yaml

_LISTS = Path(__file__).with_suffix(".yaml")
_PLACE = re.compile(r"\{([^}]+)\}")


def everyday_captions(count: int, seed: int) -> list[str]:
    """`count` different captions; a pure function of both."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, 0]))
    captions: dict[str, None] = {}
    while len(captions) < count:
        captions[_filled("{forms}", draw)] = None
    return list(captions)


def _filled(text: str, draw: np.random.Generator) -> str:
    """The text with an entry of its list in each {place}, from left to right; entries may have places."""
    while place := _PLACE.search(text):
        entries = _lists()[place[1]]
        text = text[: place.start()] + entries[draw.integers(len(entries))] + text[place.end() :]
    return text


@cache
def _lists() -> dict[str, list[str]]:
    lists: dict[str, list[str]] = yaml.safe_load(_LISTS.read_text(encoding="utf-8"))
    return lists
