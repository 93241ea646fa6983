"""What objectives want of a pair beside its picture and its caption: further texts, a number, its classes.

Legend: b pairs of one process's batch, c classes of the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from domainclip import seeding
from domainclip.data.text.training_pair import TrainingPair

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ExtraSpec:
    """What is wanted of every pair; a pure description, so that workers can carry it."""

    # By objective: the function that makes its further texts of a pair.
    texts: Mapping[str, Callable[[TrainingPair], list[str]]] = field(default_factory=dict)
    value_columns: Mapping[str, str] = field(default_factory=dict)  # by objective: a key of the items' meta
    classes: tuple[str, ...] = ()  # all of the corpus, where classes are wanted
    second_view: bool = False  # a second view of each picture

    @property
    def reads_columns(self) -> bool:
        """Whether something is wanted that stands in an item's row."""
        return bool(self.texts or self.value_columns or self.classes)


@dataclass(frozen=True)
class PairExtras:
    """What one pair brings of it."""

    texts: dict[str, list[str]]
    values: dict[str, float]
    labels: np.ndarray | None  # (c,) bool


@dataclass(frozen=True)
class BatchExtras:
    """What a batch brings of it."""

    texts: dict[str, list[list[str]]] = field(default_factory=dict)  # (b) lists of texts, by objective
    values: dict[str, Tensor] = field(default_factory=dict)  # (b,) fp32, NaN where there is none
    labels: Tensor | None = None  # (b, c) bool

    def first(self, pairs: int) -> BatchExtras:
        """That of the first pairs."""
        return BatchExtras(
            {name: texts[:pairs] for name, texts in self.texts.items()},
            {name: value[:pairs] for name, value in self.values.items()},
            None if self.labels is None else self.labels[:pairs],
        )

    def to(self, device: torch.device) -> BatchExtras:
        """The same, its tensors on a device."""
        value = {name: one.to(device) for name, one in self.values.items()}
        return BatchExtras(self.texts, value, None if self.labels is None else self.labels.to(device))


class ExtraColumns:
    """The columns that are read for it, once."""

    def __init__(self, items: Dataset, spec: ExtraSpec) -> None:
        self.spec = spec
        columns = (
            [items[name][:] for name in ("texts", "language", "labels", "meta")] if spec.reads_columns else []
        )
        self.rows: list[tuple[Any, ...]] = list(zip(*columns, strict=True))

    def extras_of(self, index: int, text: str, seed: int, epoch: int) -> PairExtras | None:
        """What one item brings in an epoch that shows `text`; a pure function of these."""
        if not self.rows:
            return None
        texts, languages, labels, said = self.rows[index]
        meta = json.loads(said)
        draw = seeding.stable(seed, epoch, index, "said")  # the word is part of the draw
        shown = TrainingPair(text, tuple(texts), tuple(languages), tuple(labels), meta, draw)
        return PairExtras(
            {name: make(shown) for name, make in self.spec.texts.items()},
            {name: to_number(meta.get(key)) for name, key in self.spec.value_columns.items()},
            np.isin(self.spec.classes, labels) if self.spec.classes else None,
        )


def stack_extras(rows: Sequence[PairExtras | None]) -> BatchExtras:
    """What a batch brings, of what its pairs bring."""
    known = [row for row in rows if row is not None]
    if not known:
        return BatchExtras()
    labels = [row.labels for row in known if row.labels is not None]
    return BatchExtras(
        {name: [row.texts[name] for row in known] for name in known[0].texts},
        {name: torch.tensor([row.values[name] for row in known]) for name in known[0].values},
        torch.from_numpy(np.stack(labels)) if labels else None,
    )


def join_extras(parts: Sequence[BatchExtras]) -> BatchExtras:
    """Several batches as one, in order."""
    first = parts[0]
    return BatchExtras(
        {name: [texts for part in parts for texts in part.texts[name]] for name in first.texts},
        {name: torch.cat([part.values[name] for part in parts]) for name in first.values},
        None if first.labels is None else torch.cat([p.labels for p in parts if p.labels is not None]),
    )


def to_number(value: Any) -> float:
    """A number of a corpus, which may stand there as text; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def augmented_view(picture: Image.Image, draw: np.random.Generator, mirror: bool) -> Image.Image:
    """A strong augmentation: 40 to 100 % of the area, brightness and contrast changed by up to 40 %.

    Mirrored, one time in two, only where the recipe lets pictures be mirrored: captions may say left and
    right. Colours keep their tone, which in stained tissue or in a nebula is what is told. Milder than in
    SLIP, which cuts to 8 to 100 %, and changes hue, takes colours away and blurs too. [arXiv:2112.12750]
    """
    side = float(np.sqrt(draw.uniform(0.4, 1.0)))
    width, height = (max(1, round(edge * side)) for edge in picture.size)
    left, top = int(draw.integers(picture.width - width + 1)), int(draw.integers(picture.height - height + 1))
    found = picture.crop((left, top, left + width, top + height))
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        found = change(found).enhance(float(draw.uniform(0.6, 1.4)))
    return ImageOps.mirror(found) if mirror and draw.random() < 0.5 else found
