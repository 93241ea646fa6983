"""Captions of an evaluation set and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet


@dataclass(frozen=True)
class Caption:
    """One text of one item, with the position of that item in its set."""

    row: int
    language: str
    text: str


def captions(data: EvaluationSet) -> list[Caption]:
    """Every text that says something, in the order of the items."""
    rows = enumerate(zip(data.items["texts"], data.items["language"], strict=True))
    return [
        Caption(row, language, text)
        for row, (texts, languages) in rows
        for text, language in zip(texts, languages, strict=True)
        if normalise(text)
    ]


def caption_vectors(encoder: Encoder, data: EvaluationSet, texts: Sequence[str]) -> np.ndarray:
    """(q, d) of captions of the set, asked for as `retrieval` does: all of a language at once, in order.

    An encoder keeps what a request gave, so captions that several probes need are encoded once. One wording
    stands for all that read the same.
    """
    said: dict[str, dict[str, str]] = {}
    for one in captions(data):
        wordings, key = said.setdefault(one.language, {}), normalise(one.text)
        wordings[key] = min(one.text, wordings.get(key, one.text))
    wanted = [normalise(text) for text in texts]
    found: dict[str, np.ndarray] = {}
    for language in sorted(said):
        keys = sorted(said[language])
        if not set(wanted).isdisjoint(keys):
            found |= zip(keys, encoder.texts([said[language][key] for key in keys]), strict=True)
    return np.stack([found[key] for key in wanted])
