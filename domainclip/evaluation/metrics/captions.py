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
    """One caption of one item, with the position of that item in its set."""

    row: int
    language: str
    text: str


def captions(data: EvaluationSet) -> list[Caption]:
    """Every text that is not blank, in the order of the items."""
    rows = enumerate(zip(data.items["texts"], data.items["language"], strict=True))
    return [
        Caption(row, language, text)
        for row, (texts, languages) in rows
        for text, language in zip(texts, languages, strict=True)
        if normalise(text)
    ]


def caption_vectors(encoder: Encoder, data: EvaluationSet, texts: Sequence[str]) -> np.ndarray:
    """(q, d) embeddings of captions of the set, requested as `retrieval` does: a language at a time, sorted.

    An encoder caches each request, so captions that several probes need are encoded once. Texts that are
    equal once normalised share one representative.
    """
    representatives: dict[str, dict[str, str]] = {}
    for caption in captions(data):
        by_key, key = representatives.setdefault(caption.language, {}), normalise(caption.text)
        by_key[key] = min(caption.text, by_key.get(key, caption.text))
    requested = [normalise(text) for text in texts]
    vectors: dict[str, np.ndarray] = {}
    for language in sorted(representatives):
        keys = sorted(representatives[language])
        if not set(requested).isdisjoint(keys):
            vectors |= zip(keys, encoder.texts([representatives[language][key] for key in keys]), strict=True)
    return np.stack([vectors[key] for key in requested])
