"""Pairs as training sees them, and batches of them.

Legend: b pairs of one process's batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from PIL import Image, ImageOps
from torch import Tensor

from domainclip import seeding
from domainclip.data.batching import caption_sampling, order
from domainclip.data.batching.extras import (
    BatchExtras,
    ExtraColumns,
    ExtraSpec,
    PairExtras,
    augmented_view,
    stack_extras,
)
from domainclip.data.batching.negative_groups import loss_groups
from domainclip.data.images.decode import decode_image
from domainclip.data.images.frames import sample_frames, stack_frames
from domainclip.data.quarantine import UnusableItem
from domainclip.data.text.captions import Captions
from domainclip.errors import DataError, UnreadableImage

Preprocess = Callable[[Image.Image], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Pair:
    """One picture with one of its captions."""

    image: dict[str, np.ndarray] | None
    text: str
    group: int
    index: int
    id: str
    requested: int  # the row that was asked for: another than `index` when its picture cannot be read
    unusable: tuple[UnusableItem, ...] = ()
    second_view: dict[str, np.ndarray] | None = None  # another view of the picture, where one is wanted
    extras: PairExtras | None = None


@dataclass(frozen=True)
class Batch:
    """What one process brings to a step."""

    image: dict[str, Tensor] | None  # (b, …) uint8 for each output of the preprocessing
    texts: list[str]
    group: Tensor  # (b,) int64
    index: Tensor  # (b,) int64: the row of each pair
    ids: list[str]
    requested: Tensor  # (b,) int64: the row that the order asked for
    unusable: list[UnusableItem] = field(default_factory=list)  # what could not be read and was replaced
    second_view: dict[str, Tensor] | None = None  # as `image`, of the second views
    extras: BatchExtras = field(default_factory=BatchExtras)


class Pairs(torch.utils.data.Dataset[Pair]):
    """The training pairs, indexed by (epoch, index); every draw is a pure function of that and the seed.

    A picture that cannot be read is replaced by the next one that can, always the same, and is reported
    with every batch that asked for it.
    """

    def __init__(
        self,
        items: Dataset,
        preprocess: Preprocess,
        *,
        seed: int = 0,
        augmentation: Literal["none", "crop", "crop_flip"] = "none",
        captions: Captions | None = None,
        token_limit: caption_sampling.TokenLimit | None = None,
        views: Literal["random", "first"] = "random",
        frames: int = 1,
        pixels: bool = True,
        replacements: Mapping[int, int] | None = None,
        extra_spec: ExtraSpec | None = None,
    ) -> None:
        """`pixels=False` skips the pictures, for when their embeddings are kept; then `replaced` says which
        row stands for an unreadable one, as `Batch.asked` and `Batch.index` told. `fit` says how much of a
        caption the base reads, where the card's captions are shown in windows. Above 1, `frames` of an item's
        pictures are shown at once, whatever `views` says.
        """
        self.items = items
        self.preprocess = preprocess
        self.seed = seed
        self.augmentation = augmentation
        self.views = views
        self.fixed_view = (
            False  # whether every epoch shows the same view of an item: the first that can be read
        )
        self.frames = frames
        self.pixels = pixels
        self.strata: np.ndarray | None = None  # (n,) which pairs are shown together; None: any
        # Pictures that are kept as the preprocessing gives them; None in the place of a bad one.
        self.cached_pixels: Callable[[int], dict[str, np.ndarray] | None] | None = None
        self.replacements = dict(replacements or {})
        # Whole columns, read once: row by row is fifty times slower, and brings the pictures' bytes along.
        self.caption_pools = caption_sampling.caption_pools(items, captions or Captions(), token_limit)
        self.texts = [
            pool.texts for pool in self.caption_pools
        ]  # all that may be shown, of which some is drawn
        self.ids: list[str] = items["id"][:]
        self.groups = loss_groups(self.texts, items["group"][:])
        self.extra_spec = extra_spec or ExtraSpec()
        self.extra_columns = ExtraColumns(items, self.extra_spec)

    def without_pixels(self, replacements: Mapping[int, int]) -> Pairs:
        """The same pairs for when the embeddings of the pictures are kept."""
        others = copy.copy(self)
        others.pixels, others.replacements = False, dict(replacements)
        return others

    def for_model(self, preprocess: Preprocess) -> Pairs:
        """The same pairs for another model: the first picture of each that can be read, whole, no more."""
        others = copy.copy(self)
        others.preprocess, others.augmentation, others.fixed_view = preprocess, "none", True
        others.pixels, others.cached_pixels, others.extra_spec, others.frames = True, None, ExtraSpec(), 1
        others.extra_columns = ExtraColumns(self.items, others.extra_spec)
        return others

    @property
    def views_change(self) -> bool:
        """Whether some item shows another picture in another epoch."""
        if self.views == "first" or self.frames > 1:
            return False
        arrays = self.items.select_columns("views").with_format("arrow")  # their bytes stay where they are
        return any(pc.max(pc.list_value_length(part["views"])).as_py() for part in arrays.iter(1000))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: order.Position) -> Pair:
        epoch, asked = position
        bad: list[UnusableItem] = []
        for step in range(len(self)):
            index = (self.replacements.get(asked, asked) + step) % len(self)
            try:
                return self._pair(epoch, index, asked, tuple(bad))
            except UnreadableImage as error:
                bad.append(UnusableItem(f"item {self.ids[index]}", error.reason, error.name))
        raise DataError(f"corpus: none of {len(self)} pictures can be read; the first: {bad[0].reason}")

    def _pair(self, epoch: int, index: int, asked: int, bad: tuple[UnusableItem, ...]) -> Pair:
        image = second = None
        if self.pixels:
            image, lost = self._image(epoch, index)
            bad += lost
            second = self._second(epoch, index) if self.extra_spec.second_view else None
        chosen = caption_sampling.choose_caption(self.caption_pools[index], self.seed, epoch, index)
        text, group, id = self.texts[index][chosen], self.groups[index][chosen], self.ids[index]
        more = self.extra_columns.extras_of(index, text, self.seed, epoch)
        return Pair(image, text, group, index, id, asked, bad, second, more)

    def _second(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """Another view of the item's first picture that can be read."""
        row = self.items[index]
        readable = (image for image in (row["image"], *row["views"]) if (self._readable(image)))
        image = next(readable)
        draw = np.random.Generator(np.random.Philox(key=seeding.stable(self.seed, epoch, index, "second")))
        picture = augmented_view(decode_image(image), draw, mirror=self.augmentation == "crop_flip")
        return preprocess_image(picture, self.preprocess, image)

    @staticmethod
    def _readable(image: Mapping[str, Any]) -> bool:
        try:
            decode_image(image)
        except UnreadableImage:
            return False
        return True

    def _image(self, epoch: int, index: int) -> tuple[dict[str, np.ndarray], tuple[UnusableItem, ...]]:
        """What an item shows in an epoch; a view that cannot be read leaves the place to the next one."""
        if self.cached_pixels is not None and (known := self.cached_pixels(index)) is not None:
            return known, ()
        row = self.items[index]
        if self.frames > 1:
            return self._study([row["image"], *row["views"]], epoch, index)
        pictures = [row["image"], *(row["views"] if self.views == "random" else [])]
        first = 0 if self.fixed_view else seeding.choose(self.seed, epoch, index, len(pictures), "view")
        lost: list[UnusableItem] = []
        for at in (*range(first, len(pictures)), *range(first)):
            try:
                return self._prepared(pictures[at], epoch, index), tuple(lost)
            except UnreadableImage as error:
                lost.append(self._lost(index, at, error))
        raise UnreadableImage(lost[0].source, lost[0].reason)

    def _study(
        self, pictures: list[Any], epoch: int, index: int
    ) -> tuple[dict[str, np.ndarray], tuple[UnusableItem, ...]]:
        """The pictures of an item that are shown at once; one that cannot be read is left out."""
        ready, lost = [], []
        for at in sample_frames(range(len(pictures)), self.frames):
            try:
                ready.append(self._prepared(pictures[at], epoch, index))
            except UnreadableImage as error:
                lost.append(self._lost(index, at, error))
        if not ready:
            raise UnreadableImage(lost[0].source, lost[0].reason)
        return stack_frames(ready, self.frames), tuple(lost)

    def _lost(self, index: int, at: int, error: UnreadableImage) -> UnusableItem:
        place = f"item {self.ids[index]}" + (f" view {at}" if at else "")
        return UnusableItem(place, error.reason, error.name)

    def _prepared(self, image: Mapping[str, Any], epoch: int, index: int) -> dict[str, np.ndarray]:
        picture = decode_image(image)
        if self.augmentation != "none":
            picture = random_crop(picture, seeding.draw(self.seed, epoch, index))
        # A draw of its own, so that a corpus that may be mirrored is cut as it would be without.
        if self.augmentation == "crop_flip" and seeding.stable(self.seed, epoch, index, "mirror") % 2:
            picture = ImageOps.mirror(picture)
        return preprocess_image(picture, self.preprocess, image)


def preprocess_image(
    picture: Image.Image, preprocess: Preprocess, image: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What the towers take of a picture.

    Raises: UnreadableImage for one that cannot be brought to their size, as a sliver of one pixel.
    """
    try:
        return preprocess(picture)
    except DataError as error:
        raise UnreadableImage(str(image.get("path") or "image"), str(error)) from None


def random_crop(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A random part: 80 to 100 % of the area, sides stretched against each other by 10 % at most.

    Mild, so that what a caption speaks of stays in the picture; and not mirrored, since captions may say
    left and right: that is `crop_flip`.
    """
    area = picture.width * picture.height * draw.uniform(0.8, 1.0)
    ratio = picture.width / picture.height * np.exp(draw.uniform(-np.log(1.1), np.log(1.1)))
    width = min(picture.width, max(1, round(float(np.sqrt(area * ratio)))))
    height = min(picture.height, max(1, round(float(np.sqrt(area / ratio)))))
    left = int(draw.integers(picture.width - width + 1))
    top = int(draw.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def collate(rows: list[Pair]) -> Batch:
    """One batch of pairs, in their order."""
    return Batch(
        image=_stacked([row.image for row in rows]),
        texts=[row.text for row in rows],
        group=torch.tensor([row.group for row in rows]),
        index=torch.tensor([row.index for row in rows]),
        ids=[row.id for row in rows],
        requested=torch.tensor([row.requested for row in rows]),
        unusable=[item for row in rows for item in row.unusable],
        second_view=_stacked([row.second_view for row in rows]),
        extras=stack_extras([row.extras for row in rows]),
    )


def _stacked(images: list[dict[str, np.ndarray] | None]) -> dict[str, Tensor] | None:
    known = [image for image in images if image is not None]
    return (
        {name: torch.from_numpy(np.stack([one[name] for one in known])) for name in known[0]}
        if known
        else None
    )
