"""Embeddings of a few pictures, on one process: what a model says where two are nearly the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from domainclip.data.images.decode import decode_image
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.models.dual_encoder import DualEncoder

_CHUNK = 32


def embed_images(model: DualEncoder) -> Callable[[list[dict[str, Any]]], np.ndarray]:
    """A function from pictures, as in the `image` column, to (n, d) embeddings of unit length."""

    def rows(images: list[dict[str, Any]]) -> np.ndarray:
        encoder = CachedEncoder(model)
        chunks = (images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK))
        ready = ([model.image_preprocessor(decode_image(image)) for image in chunk] for chunk in chunks)
        return np.concatenate([encoder.image_rows(chunk) for chunk in ready])

    return rows
