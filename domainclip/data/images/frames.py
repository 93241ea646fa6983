"""The pictures of one study as one: frames of a clip, slices of a series, views of a patient.

Legend: f frames at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

FRAME_MASK = "shown"  # (f,) bool: which of the frames there are
Item = TypeVar("Item")


def sample_frames(pictures: Sequence[Item], frames: int) -> list[Item]:
    """At most so many of them, evenly from the first to the last, in order; always the same."""
    last = len(pictures) - 1
    if last < frames:
        return list(pictures)
    return [pictures[at * last // max(1, frames - 1)] for at in range(frames)]


def stack_frames(prepared: Sequence[dict[str, np.ndarray]], frames: int) -> dict[str, np.ndarray]:
    """What the preprocessing gave for each, with a leading axis of f; `shown` says which are no padding."""
    missing = frames - len(prepared)
    whole = {
        name: np.stack([*(one[name] for one in prepared), *[np.zeros_like(value)] * missing])
        for name, value in prepared[0].items()
    }
    return {**whole, FRAME_MASK: np.arange(frames) < len(prepared)}
