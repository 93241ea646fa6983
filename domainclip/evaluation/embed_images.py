"""Embeddings of a few images, on one process, to confirm near duplicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from domainclip.data.images.decode import decode_image
from domainclip.evaluation import chunks
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.models.dual_encoder import DualEncoder


def embed_images(model: DualEncoder) -> Callable[[list[dict[str, Any]]], np.ndarray]:
    """A function from images, as in the `image` column, to (n, d) embeddings of unit length."""

    def embed(images: list[dict[str, Any]]) -> np.ndarray:
        encoder = CachedEncoder(model)
        inputs = (
            [model.image_preprocessor(decode_image(image)) for image in chunk]
            for chunk in chunks.split(images)
        )
        return np.concatenate([encoder.encode_image_chunk(chunk) for chunk in inputs])

    return embed
