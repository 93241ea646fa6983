"""An encoder with truncated embeddings, as a smaller search index would use them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from domainclip.data.interfaces import Encoder
from domainclip.errors import RecipeError


class TruncatedEncoder(Encoder):
    """The first `dimensions` of another encoder's embeddings, normalised again [arXiv:2205.13147].

    Raises: RecipeError when the embeddings have fewer; it names `key`, the recipe key of `dimensions`.
    """

    def __init__(self, encoder: Encoder, dimensions: int, key: str) -> None:
        self.encoder, self.dimensions, self.key = encoder, dimensions, key
        self.scale, self.bias = encoder.scale, encoder.bias

    def images(self, items: Dataset) -> np.ndarray:
        """(n, dimensions) of unit length."""
        return self._truncate(self.encoder.images(items))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), dimensions) of unit length."""
        return self._truncate(self.encoder.texts(texts))

    def _truncate(self, rows: np.ndarray) -> np.ndarray:
        if self.dimensions > rows.shape[1]:
            raise RecipeError(
                f"{self.key}: {self.dimensions} is more than the {rows.shape[1]} dimensions of the "
                "embeddings: choose a smaller number"
            )
        leading = rows[:, : self.dimensions]
        unit: np.ndarray = leading / np.maximum(np.linalg.norm(leading, axis=1, keepdims=True), 1e-12)
        return unit
