"""An encoder whose embeddings are cut short: what a smaller index would search in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from domainclip.data.interfaces import Encoder
from domainclip.errors import RecipeError


class Narrow:
    """The first `width` dimensions of another encoder's embeddings, at unit length again [arXiv:2205.13147].

    Raises: RecipeError when the embeddings have fewer; `key` is where the recipe asks for them.
    """

    def __init__(self, encoder: Encoder, width: int, key: str) -> None:
        self.encoder, self.width, self.key = encoder, width, key
        self.scale, self.bias = encoder.scale, encoder.bias

    def images(self, items: Dataset) -> np.ndarray:
        """(n, width)"""
        return self._cut(self.encoder.images(items))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), width)"""
        return self._cut(self.encoder.texts(texts))

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        if self.width > rows.shape[1]:
            raise RecipeError(
                f"{self.key}: {self.width} is more than the {rows.shape[1]} dimensions that the embeddings "
                "have: name smaller ones"
            )
        short = rows[:, : self.width]
        cut: np.ndarray = short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
        return cut
