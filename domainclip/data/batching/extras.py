"""What objectives require of a pair besides its image and caption: further texts, a number, its classes.

Legend: b pairs of one process's batch, c classes of the corpus, v tags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from domainclip import seeding
from domainclip.data.batching.item_columns import derived_column
from domainclip.data.batching.item_sources import SourceNumbers
from domainclip.data.dicom import typed_values
from domainclip.data.files.row_labels import IMPLIED_LABELS
from domainclip.data.text.tags import item_words
from domainclip.data.text.training_pair import ClassPrompts, TrainingPair

if TYPE_CHECKING:
    from datasets import Dataset


# A second view of an image: strongly augmented; a small crop; or another image of its group, augmented so.
SecondView = Literal["strong", "local", "same_group"]
_AREAS = {"strong": (0.4, 1.0), "local": (0.05, 0.4), "same_group": (0.4, 1.0)}  # shares of the image


@dataclass(frozen=True)
class ExtraSpec:
    """The extras that the objectives require of every pair; a pure description that workers can unpickle."""

    # By objective: the function that makes its further texts of a pair.
    texts: Mapping[str, Callable[[TrainingPair], list[str]]] = field(default_factory=dict)
    value_columns: Mapping[str, str] = field(default_factory=dict)  # by objective: a key of the items' meta
    classes: tuple[str, ...] = ()  # all classes of the corpus, where an objective requires them
    tags: tuple[str, ...] = ()  # words that captions may name, where an objective requires them
    second_view: SecondView | None = None  # the kind of a second view of each image; None: there is none
    prompts: Mapping[str, ClassPrompts] = field(
        default_factory=dict
    )  # of the classes of zero-shot classification
    # Whether each class has its own column, so that an item without any label has none of the classes.
    all_labelled: bool = False
    # By objective: the sources of the corpus, whose numbers are its values.
    sources: Mapping[str, SourceNumbers] = field(default_factory=dict)

    @property
    def reads_columns(self) -> bool:
        """Whether any extra is made from the columns of an item."""
        return bool(self.texts or self.value_columns or self.sources or self.classes or self.tags)


@dataclass(frozen=True)
class PairExtras:
    """The extras of one pair."""

    texts: dict[str, list[str]]
    values: dict[str, float]
    labels: np.ndarray | None  # (c,) bool
    tags: np.ndarray | None = None  # (v,) bool


@dataclass(frozen=True)
class BatchExtras:
    """The extras of a batch."""

    texts: dict[str, list[list[str]]] = field(default_factory=dict)  # (b) lists of texts, by objective
    values: dict[str, Tensor] = field(default_factory=dict)  # (b,) fp32, NaN where there is none
    labels: Tensor | None = None  # (b, c) bool
    tags: Tensor | None = None  # (b, v) bool

    def first(self, count: int) -> BatchExtras:
        """The extras of the first `count` pairs."""
        return BatchExtras(
            {name: texts[:count] for name, texts in self.texts.items()},
            {name: values[:count] for name, values in self.values.items()},
            None if self.labels is None else self.labels[:count],
            None if self.tags is None else self.tags[:count],
        )

    def to(self, device: torch.device) -> BatchExtras:
        """The same extras with their tensors on a device."""
        values = {name: tensor.to(device) for name, tensor in self.values.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return BatchExtras(self.texts, values, labels, None if self.tags is None else self.tags.to(device))


class ExtraColumns:
    """The columns that the extras are made from."""

    def __init__(self, items: Dataset, spec: ExtraSpec) -> None:
        self.spec = spec
        names = ("texts", "language", "labels", "meta") if spec.reads_columns else ()
        self.rows: Sequence[tuple[Any, ...]] = derived_column(items, names, _row) if names else ()

    def extras_of(self, index: int, text: str, seed: int, epoch: int) -> PairExtras | None:
        """The extras of an item in an epoch that shows `text`; a pure function of the arguments."""
        if not self.rows:
            return None
        texts, languages, labels, meta_json = self.rows[index]
        meta = json.loads(meta_json)
        labels = [*labels, *meta.get(IMPLIED_LABELS, ())]
        draw = seeding.stable(seed, epoch, index, "said")  # the word is part of the draw
        classes = self.spec.prompts if labels or self.spec.all_labelled else {}
        pair = TrainingPair(text, tuple(texts), tuple(languages), tuple(labels), meta, draw, classes)
        return PairExtras(
            {name: make(pair) for name, make in self.spec.texts.items()},
            {name: to_number(meta.get(key), key) for name, key in self.spec.value_columns.items()}
            | {name: numbers.number_of(meta) for name, numbers in self.spec.sources.items()},
            np.isin(self.spec.classes, labels) if self.spec.classes else None,
            np.isin(self.spec.tags, list(item_words(texts, languages))) if self.spec.tags else None,
        )


def _row(*values: Any) -> tuple[Any, ...]:
    return values


def stack_extras(pairs: Sequence[PairExtras | None]) -> BatchExtras:
    """The extras of a batch, from those of its pairs."""
    extras = [pair for pair in pairs if pair is not None]
    if not extras:
        return BatchExtras()
    labels = [pair.labels for pair in extras if pair.labels is not None]
    tags = [pair.tags for pair in extras if pair.tags is not None]
    return BatchExtras(
        {name: [pair.texts[name] for pair in extras] for name in extras[0].texts},
        {name: torch.tensor([pair.values[name] for pair in extras]) for name in extras[0].values},
        torch.from_numpy(np.stack(labels)) if labels else None,
        torch.from_numpy(np.stack(tags)) if tags else None,
    )


def join_extras(batches: Sequence[BatchExtras]) -> BatchExtras:
    """The extras of several batches as those of one, in order."""
    labels = [batch.labels for batch in batches if batch.labels is not None]
    tags = [batch.tags for batch in batches if batch.tags is not None]
    return BatchExtras(
        {name: [texts for batch in batches for texts in batch.texts[name]] for name in batches[0].texts},
        {name: torch.cat([batch.values[name] for batch in batches]) for name in batches[0].values},
        torch.cat(labels) if labels else None,
        torch.cat(tags) if tags else None,
    )


def to_number(value: Any, column: str) -> float:
    """A number of a corpus, which may be stored as text, or as a DICOM age or date; NaN for anything else."""
    vr = typed_values.type_of(column, (value,))
    typed: Any = typed_values.typed_value(value, vr) if typed_values.is_numeric(vr) else value
    try:
        return float(typed)
    except (TypeError, ValueError):
        return float("nan")


def augmented_view(
    image: Image.Image, draw: np.random.Generator, mirror: bool, kind: SecondView = "strong"
) -> Image.Image:
    """A strong augmentation: 40 to 100 % of the area, brightness and contrast changed by up to 40 %.

    `local` is 5 to 40 % of the area, as the small crops of DINO are [arXiv:2104.14294].
    Mirrored, one time in two, only where the recipe lets images be mirrored: captions may name left and
    right. Hues are unchanged, since in stained tissue or in a nebula they carry the information. Milder than
    SLIP, which crops to 8 to 100 %, changes hue, converts to grey and blurs too. [arXiv:2112.12750]
    """
    side = float(np.sqrt(draw.uniform(*_AREAS[kind])))
    width, height = (max(1, round(edge * side)) for edge in image.size)
    left, top = int(draw.integers(image.width - width + 1)), int(draw.integers(image.height - height + 1))
    view = image.crop((left, top, left + width, top + height))
    for enhancement in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        view = enhancement(view).enhance(float(draw.uniform(0.6, 1.4)))
    return ImageOps.mirror(view) if mirror and draw.random() < 0.5 else view
