"""Small sets of cats and dogs, with given embeddings or with images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from tests.evaluation.probes.array_encoder import ArrayEncoder

CLASSES = {"cat": "a cat", "dog": "a dog"}
AXES = {"a cat": [1.0, 0.0], "a dog": [0.0, 1.0]}


def animals(n: int, groups: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{i:03d}", "labels": ["cat" if i % 2 else "dog"], "group": f"g{i % (groups or n):03d}"}
        for i in range(n)
    ]


def skilled(n: int, right: float, seed: int = 0) -> ArrayEncoder:
    """A model that classifies this share of the animals correctly."""
    rng = np.random.default_rng(seed)
    vectors = {}
    for i in range(n):
        cat = bool(i % 2) == (rng.random() < right)
        vectors[f"{i:03d}"] = [1.0, 0.1] if cat else [0.1, 1.0]
    return ArrayEncoder(vectors, AXES)


def image(seed: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels.repeat(6, axis=0).repeat(6, axis=1)).save(stream, "PNG")
    return {"path": None, "bytes": stream.getvalue()}


def samples(n: int, broken: Sequence[int] = ()) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{i:03d}",
            "labels": ["cat" if i % 3 else "dog"],
            "texts": [f"a photo of {'cat ' * (i % 5)}{i}"],
            "image": {"path": None, "bytes": b"no image"} if i in broken else image(i),
            "group": f"g{i // 2}",
        }
        for i in range(n)
    ]
