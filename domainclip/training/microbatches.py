"""Micro-batches without redundant work: equal texts are encoded once, texts of similar length together.

Both are exact. The gradients of equal texts add up; the order of the texts and the length of their padding
change embeddings by rounding only. With dropout, equal texts share one draw.

Legend: b pairs of this process, m anchor texts of this process, u distinct texts among the b + m.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from torch import Tensor

# Padding tokens that another group must save to be worth a pass: a token costs milliseconds on a CPU and
# microseconds on a GPU, where a pass has to start a thousand kernels.
_MIN_SAVED = {"cpu": 64}
_MIN_SAVED_ELSEWHERE = 1024


class Captions(Protocol):
    """Texts as the text tower's input."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the arguments of `encode_text`, padded to the longest of these texts."""


@dataclass(frozen=True)
class MicroBatches:
    """The inputs of the model, one entry for each micro-batch."""

    # `image` and `text` of `Towers.forward`, each None where there is none. Images stay where they are: of a
    # large batch, only those of one micro-batch have to fit on the device (`on_device`).
    inputs: list[dict[str, Any]]
    row_of_text: Tensor | None  # (b + m,) the encoded row of each text; None when no text is encoded


def split_rows(
    image: dict[str, Tensor] | None,
    texts: Sequence[str],
    captions: Captions,
    pairs: int,
    micro: int | None,
    device: torch.device,
    *,
    in_lockstep: bool = False,
) -> MicroBatches:
    """Split into even shares of images and of distinct texts, shortest first; the last always has texts.

    `in_lockstep`: each micro-batch has texts, in one group, so that all processes run the text tower equally
    often.
    """
    distinct = list(dict.fromkeys(texts))
    lengths = dict(zip(distinct, captions.lengths(distinct), strict=True)) if distinct else {}
    distinct.sort(key=lambda text: lengths[text])
    count = 1 if micro is None else ceil(pairs / micro)
    if in_lockstep and distinct:
        distinct += distinct[-1:] * (count - len(distinct))  # encoded for nothing, without gradient
    min_saved = sys.maxsize if in_lockstep else _MIN_SAVED.get(device.type, _MIN_SAVED_ELSEWHERE)
    images = 0 if image is None else len(next(iter(image.values())))  # two of each pair with second views
    inputs = []
    for number in range(count):
        rows, local = _share(images, number, count), distinct[_share(len(distinct), number, count)]
        groups = group_by_length([lengths[text] for text in local], min_saved)
        tokens = [{k: v.to(device) for k, v in captions.batch(local[group]).items()} for group in groups]
        pixels = None if image is None else {name: value[rows] for name, value in image.items()}
        inputs.append({"image": pixels, "text": tokens or None})
    row = {text: number for number, text in enumerate(distinct)}
    row_of_text = torch.tensor([row[text] for text in texts], device=device) if distinct else None
    return MicroBatches(inputs, row_of_text)


def on_device(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the inputs of a micro-batch with its images on the device; pinned memory is copied meanwhile."""
    image = inputs["image"]
    if image is None:
        return inputs
    return {**inputs, "image": {name: value.to(device, non_blocking=True) for name, value in image.items()}}


def group_by_length(lengths: Sequence[int], min_saved: int) -> list[slice]:
    """Return groups of ascending lengths, cut wherever that saves at least `min_saved` tokens of padding."""
    if not lengths:
        return []
    cuts = [(at * (lengths[-1] - lengths[at - 1]), at) for at in range(1, len(lengths))]
    saved, at = max(cuts, default=(0, 0))
    if saved < max(min_saved, 1):
        return [slice(0, len(lengths))]
    above = group_by_length(lengths[at:], min_saved)
    return [
        *group_by_length(lengths[:at], min_saved),
        *(slice(at + group.start, at + group.stop) for group in above),
    ]


def _share(rows: int, number: int, count: int) -> slice:
    return slice(rows * number // count, rows * (number + 1) // count)
