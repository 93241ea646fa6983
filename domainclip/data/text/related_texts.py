"""Further texts that a pair already has: a column of its item, or another of the item's captions."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from domainclip import seeding
from domainclip.data.text.captions import REWRITES, normalise
from domainclip.data.text.training_pair import TrainingPair

LanguageFilter = Literal["any", "same_language", "other_language"]


def column_texts(pair: TrainingPair, column: str) -> list[str]:
    """The texts under a key of the item's meta: one, or several as a list, written out or not."""
    return [text for text in map(str.strip, map(str, _listed(pair.meta.get(column)))) if text]


def rewrites(pair: TrainingPair) -> dict[str, str]:
    """The item's captions in other words with their languages, as the card's captions.rewrites names them."""
    return {text: spoken for text, spoken in pair.meta.get(REWRITES, ()) if text}


def caption_language(pair: TrainingPair) -> str:
    """That of the caption which is shown, or of the one that it is a part of; "" where nobody says."""
    known = dict(zip(pair.texts, pair.languages, strict=False)) | rewrites(pair)
    if pair.text in known:
        return known[pair.text]
    return next((spoken for text, spoken in known.items() if pair.text in text), "")


def other_captions(pair: TrainingPair, which: LanguageFilter = "any") -> list[str]:
    """The item's other captions, none of which the shown one is a part of."""
    own = caption_language(pair)
    others = [
        (text, spoken == own)
        for text, spoken in zip(pair.texts, pair.languages, strict=False)
        if text and pair.text not in text
    ]
    return [text for text, alike in others if which == "any" or alike == (which == "same_language")]


def draw_texts(texts: Iterable[str], pair: TrainingPair, most: int | None = None) -> list[str]:
    """Up to `most` of the texts, each once, in an order that the pair's seed decides."""
    distinct = dict.fromkeys(text for text in texts if text)
    return sorted(distinct, key=lambda text: seeding.stable(pair.seed, "drawn", text))[:most]


def distinct_from_captions(texts: Iterable[str], pair: TrainingPair, most: int) -> list[str]:
    """The first texts that no caption of the item says, and none twice; case and spaces not counting."""
    met = {normalise(text) for text in (pair.text, *pair.texts, *rewrites(pair), "")}
    found: list[str] = []
    for text in texts:
        if len(found) == most:
            break
        if (said := normalise(text)) not in met:
            met.add(said)
            found.append(text)
    return found


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    text = "" if value is None else str(value).strip()
    # A list in the cell of a table comes as its text.
    if text.startswith("[") and text.endswith("]"):
        try:
            found = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return [text]
        return found if isinstance(found, list) else [text]
    return [text]
