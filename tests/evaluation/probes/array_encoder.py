"""An encoder of given vectors, and small evaluation sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip.data.cards import Card
from domainclip.data.interfaces import Encoder
from domainclip.data.schema import features
from domainclip.evaluation.base import EvaluationSet


class ArrayEncoder(Encoder):
    """Embeddings looked up by item id and by text, normalised; an unknown text is a KeyError."""

    def __init__(
        self,
        images: Mapping[str, Sequence[float]],
        texts: Mapping[str, Sequence[float]],
        scale: float = 100.0,
    ) -> None:
        self.image_vectors, self.text_vectors = images, texts
        self.scale = scale
        self.bias: float | None = None

    def images(self, items: Dataset) -> np.ndarray:
        return _unit([self.image_vectors[name] for name in items["id"]])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return _unit([self.text_vectors[text] for text in texts])


class CollapsedEncoder(Encoder):
    """A model with the same embedding for every input."""

    scale = 100.0
    bias = None

    def images(self, items: Dataset) -> np.ndarray:
        return np.full((len(items), 4), 0.5, dtype=np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


def items(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A set in the standard columns; missing values are empty, the default group and truth key are the id."""
    whole = []
    for row in rows:
        texts = row.get("texts", [])
        empty = {"texts": texts, "labels": [], "image": {"path": None, "bytes": None}, "group": row["id"]}
        empty |= {"views": [], "truth": row["id"]}
        columns = {**empty, **row, "language": [row.get("language", "")] * len(texts)}
        whole.append({**columns, "meta": json.dumps(row.get("meta", {}))})
    return Dataset.from_list(whole, features=features())


def evaluation_set(
    rows: Sequence[Mapping[str, Any]],
    classes: Mapping[str, Any] | None = None,
    name: str = "test",
    multi_label: bool = False,
    **card_keys: Any,
) -> EvaluationSet:
    """The items with a card of these classes."""
    card = Card.model_validate({"classes": dict(classes or {}), "multi_label": multi_label, **card_keys})
    return EvaluationSet(name, items(rows), card, card.classes)


def _unit(rows: Sequence[Sequence[float]]) -> np.ndarray:
    vectors = np.asarray(rows, dtype=np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
