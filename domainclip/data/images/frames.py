"""Several images of one item: frames of a clip, slices of a series, views of a patient.

Legend: f maximum number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

FRAME_MASK = "shown"  # (f,) bool: False for padding
Image = TypeVar("Image")


def sample_frames(images: Sequence[Image], frames: int) -> list[Image]:
    """At most `frames` of the images, evenly spaced from the first to the last, in order; deterministic."""
    last = len(images) - 1
    if last < frames:
        return list(images)
    return [images[index * last // max(1, frames - 1)] for index in range(frames)]


def stack_frames(preprocessed: Sequence[dict[str, np.ndarray]], frames: int) -> dict[str, np.ndarray]:
    """Preprocessed images with a leading axis of f, padded with zeros, and their FRAME_MASK."""
    padding = frames - len(preprocessed)
    stacked = {
        name: np.stack([*(image[name] for image in preprocessed), *[np.zeros_like(array)] * padding])
        for name, array in preprocessed[0].items()
    }
    return {**stacked, FRAME_MASK: np.arange(frames) < len(preprocessed)}
