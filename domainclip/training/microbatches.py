"""Micro-batches without needless work: equal texts once, texts of like length together.

Both are exact. A text that is said twice is encoded once and its gradients add up; the order of texts and
what they are padded to changes no embedding but by rounding. With dropout, equal texts share one draw.

Legend: b pairs of this process, m general sentences of this process, u distinct texts among the b + m.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from torch import Tensor

# Padding tokens that a further group must save to be worth its own pass: a token costs milliseconds on a
# CPU and microseconds on a GPU, where a pass is a thousand kernels to start.
_WORTH = {"cpu": 64}
_WORTH_ELSEWHERE = 1024


class Captions(Protocol):
    """Texts as a text tower takes them."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each has."""

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The arguments of `encode_text`, padded to the longest of these."""


@dataclass(frozen=True)
class MicroBatches:
    """What the towers are given, one entry a micro-batch."""

    inputs: list[dict[str, Any]]  # `image` and `text` of `Towers.forward`, each None where there is none
    row_of_text: Tensor | None  # (b + m,) which encoded row each text is; None when no text is encoded


def split_rows(
    image: dict[str, Tensor] | None,
    texts: Sequence[str],
    captions: Captions,
    pairs: int,
    micro: int | None,
    device: torch.device,
    *,
    in_step: bool = False,
) -> MicroBatches:
    """Even shares of images and of distinct texts, the shortest first; the last is never without texts.

    `in_step`: each chunk has its texts in one group, and has some, so that all processes run the text tower
    equally often.
    """
    distinct = list(dict.fromkeys(texts))
    lengths = dict(zip(distinct, captions.lengths(distinct), strict=True)) if distinct else {}
    distinct.sort(key=lambda text: lengths[text])
    count = 1 if micro is None else ceil(pairs / micro)
    if in_step and distinct:
        distinct += distinct[-1:] * (count - len(distinct))  # encoded for nothing, with no gradient
    worth = sys.maxsize if in_step else _WORTH.get(device.type, _WORTH_ELSEWHERE)
    pictures = 0 if image is None else len(next(iter(image.values())))  # two of each pair with second views
    given = []
    for number in range(count):
        rows, mine = _span(pictures, number, count), distinct[_span(len(distinct), number, count)]
        groups = group_by_length([lengths[text] for text in mine], worth)
        tokens = [{k: v.to(device) for k, v in captions.batch(mine[group]).items()} for group in groups]
        given.append(
            {
                "image": None if image is None else {name: value[rows] for name, value in image.items()},
                "text": tokens or None,
            }
        )
    row = {text: at for at, text in enumerate(distinct)}
    return MicroBatches(
        given, torch.tensor([row[text] for text in texts], device=device) if distinct else None
    )


def group_by_length(lengths: Sequence[int], worth: int) -> list[slice]:
    """Groups of ascending lengths, cut wherever a cut saves at least `worth` tokens of padding."""
    if not lengths:
        return []
    saved = [(at * (lengths[-1] - lengths[at - 1]), at) for at in range(1, len(lengths))]
    most, at = max(saved, default=(0, 0))
    if most < max(worth, 1):
        return [slice(0, len(lengths))]
    above = group_by_length(lengths[at:], worth)
    return [*group_by_length(lengths[:at], worth), *(slice(at + one.start, at + one.stop) for one in above)]


def _span(rows: int, number: int, count: int) -> slice:
    return slice(rows * number // count, rows * (number + 1) // count)
