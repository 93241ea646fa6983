"""Further texts that a pair already has: those of a column of its item, or the item's other captions."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from domainclip import seeding
from domainclip.data.text.captions import REWRITES, normalise
from domainclip.data.text.training_pair import TrainingPair

LanguageFilter = Literal["any", "same_language", "other_language"]


def column_texts(pair: TrainingPair, column: str) -> list[str]:
    """The texts under a key of the item's meta: one, or a list of several, also as the text of a list."""
    return [text for text in map(str.strip, map(str, _cell_values(pair.meta.get(column)))) if text]


def rewrites(pair: TrainingPair) -> dict[str, str]:
    """The item's rewritten captions with their languages, from the columns of captions.rewrites."""
    return {text: language for text, language in pair.meta.get(REWRITES, ()) if text}


def caption_language(pair: TrainingPair) -> str:
    """The language of the shown caption, or of the caption that contains it; "" where it is unknown."""
    languages = dict(zip(pair.texts, pair.languages, strict=False)) | rewrites(pair)
    if pair.text in languages:
        return languages[pair.text]
    return next((language for text, language in languages.items() if pair.text in text), "")


def other_captions(pair: TrainingPair, which: LanguageFilter = "any") -> list[str]:
    """The item's other captions, except those that contain the shown one."""
    shown_language = caption_language(pair)
    others = [
        (text, language == shown_language)
        for text, language in zip(pair.texts, pair.languages, strict=False)
        if text and pair.text not in text
    ]
    return [text for text, same in others if which == "any" or same == (which == "same_language")]


def draw_texts(texts: Iterable[str], pair: TrainingPair, max_texts: int | None = None) -> list[str]:
    """Up to `max_texts` of the texts, each once, in an order that the pair's seed determines."""
    distinct = dict.fromkeys(text for text in texts if text)
    return sorted(distinct, key=lambda text: seeding.stable(pair.seed, "drawn", text))[:max_texts]


def distinct_from_captions(texts: Iterable[str], pair: TrainingPair, max_texts: int) -> list[str]:
    """The first texts that are no caption of the item, each once; case and spaces are ignored."""
    excluded = {normalise(text) for text in (pair.text, *pair.texts, *rewrites(pair), "")}
    distinct: list[str] = []
    for text in texts:
        if len(distinct) == max_texts:
            break
        if (key := normalise(text)) not in excluded:
            excluded.add(key)
            distinct.append(text)
    return distinct


def _cell_values(value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    text = "" if value is None else str(value).strip()
    # A list in the cell of a table is stored as its text.
    if text.startswith("[") and text.endswith("]"):
        try:
            parsed = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return [text]
        return parsed if isinstance(parsed, list) else [text]
    return [text]
