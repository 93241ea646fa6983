"""Training pairs as a data set: which image and which caption of an item an epoch shows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from PIL import Image

from domainclip import seeding
from domainclip.config.training import Augmentation
from domainclip.data.batching import caption_sampling, item_columns, order
from domainclip.data.batching.augmentation import augment
from domainclip.data.batching.batch import Pair
from domainclip.data.batching.extras import ExtraColumns, ExtraSpec, PairExtras, SecondView, augmented_view
from domainclip.data.batching.item_columns import derived_column
from domainclip.data.batching.item_images import ItemImages
from domainclip.data.batching.matches import caption_numbers, number
from domainclip.data.images.frames import sample_frames, stack_frames
from domainclip.data.quarantine import UnusableItem
from domainclip.data.text.captions import Captions
from domainclip.errors import DataError, UnreadableImage

Preprocess = Callable[[Image.Image], dict[str, np.ndarray]]
Pixels = dict[str, np.ndarray]  # the arrays that the preprocessing returns, by name
# The image of a pair, the second view where an objective needs one, and views that could not be read.
Views = tuple[Pixels, Pixels | None, tuple[UnusableItem, ...]]
CachedImage = Callable[[int], Pixels | None]  # of a row; None for an image that has to be decoded


class Pairs(torch.utils.data.Dataset[Pair]):
    """The training pairs, indexed by (epoch, index); every draw is a pure function of that and the seed.

    An unreadable image is replaced by the next readable one, always the same, and is reported with every
    batch that requested it.
    """

    is_streamed: ClassVar[bool] = False  # a stream is never in memory as a whole

    def __init__(
        self,
        items: Dataset,
        preprocess: Preprocess,
        *,
        seed: int = 0,
        augmentation: Augmentation = "none",
        captions: Captions | None = None,
        token_limit: caption_sampling.TokenLimit | None = None,
        views: Literal["random", "first"] = "random",
        frames: int = 1,
        matched_by: Literal["group", "truth"] = "group",
        pixels: bool = True,
        replacements: Mapping[int, int] | None = None,
        extra_spec: ExtraSpec | None = None,
        smallest_side: int | None = None,
    ) -> None:
        """`pixels=False` loads no images, for when their embeddings are cached; `replacements` then maps the
        row of each unreadable image to the row that replaces it (`Batch.requested` to `Batch.index`).
        `token_limit` is required where the card shows captions in windows. Above 1, `frames` of an item's
        images are shown at once, whatever `views` is. Pairs with an equal value of the column `matched_by`
        are not each other's negatives. `smallest_side` is that of `decode_image`.
        """
        self.items = items
        self.preprocess = preprocess
        self.seed = seed
        self.augmentation = augmentation
        self.views = views
        # Whether every epoch shows the same view of an item: the first readable one.
        self.fixed_view = False
        self.frames = frames
        self.pixels = pixels
        self.smallest_side = smallest_side
        self.strata: np.ndarray | None = None  # (n,) the stratum of each pair; None: any pairs share a batch
        self.repeated: order.RepeatedRows | None = None  # None: an epoch shows each pair once
        self.selected: tuple[np.ndarray, int] | None = None  # rows to draw from, since a step; None: all
        self.cached_pixels: CachedImage | None = None  # preprocessed images from a cache
        self.replacements = dict(replacements or {})
        # Columns, and not rows, which bring the images' bytes along.
        self.caption_pools = caption_sampling.caption_pools(items, captions or Captions(), token_limit)
        self.ids = derived_column(items, ["id"], str)
        self.groups = derived_column(items, [matched_by], partial(number, matched_by))
        # Of few pairs, computed once; of many, with each pair.
        few = len(items) <= item_columns.IN_MEMORY
        self.captions = [caption_numbers(pool.texts) for pool in self.caption_pools] if few else None
        self.extra_spec = extra_spec or ExtraSpec()
        self.extra_columns = ExtraColumns(items, self.extra_spec)

    def without_pixels(self, replacements: Mapping[int, int]) -> Pairs:
        """The same pairs without images, for when the image embeddings are cached."""
        others = copy.copy(self)
        others.pixels, others.replacements = False, dict(replacements)
        return others

    def for_model(self, preprocess: Preprocess) -> Pairs:
        """The same pairs for another model: the first readable image of each, without augmentation."""
        others = copy.copy(self)
        others.preprocess, others.augmentation, others.fixed_view = preprocess, "none", True
        others.pixels, others.cached_pixels, others.extra_spec, others.frames = True, None, ExtraSpec(), 1
        others.smallest_side = None  # which fits the input of the first model
        others.extra_columns = ExtraColumns(self.items, others.extra_spec)
        return others

    def texts(self) -> Iterator[str]:
        """All texts that the items may show, item by item."""
        for pool in self.caption_pools:
            yield from pool.texts or [""]

    def with_cached_pixels(self, cached: CachedImage) -> Pairs:
        """The same pairs with preprocessed images from a cache."""
        others = copy.copy(self)
        others.cached_pixels = cached
        return others

    def selection(self, rows: np.ndarray, begin: int) -> Pairs:
        """The same pairs, of which the batches from the step `begin` on are drawn from some rows (k,)."""
        others = copy.copy(self)
        others.selected = (rows, begin)
        return others

    @property
    def epoch_pairs(self) -> float:
        """The pairs that an epoch shows: each of the corpus once, where none is repeated."""
        return len(self) if self.repeated is None else len(self.repeated)

    def positions(self, step: int, batch_size: int) -> list[order.Position]:
        """The (epoch, index) of every pair in the batch of a step; see `order.batch_positions`."""
        if self.repeated is not None:
            return self.repeated.batch_positions(step, batch_size, self.seed, self.strata)
        if self.selected is not None:
            return order.selected_positions(step, batch_size, *self.selected, self.seed)
        return order.batch_positions(step, batch_size, len(self), self.seed, self.strata)

    def extras_of(self, index: int, text: str, epoch: int) -> PairExtras | None:
        """The extras of a pair in an epoch that shows `text`."""
        return self.extra_columns.extras_of(index, text, self.seed, epoch)

    @property
    def views_change(self) -> bool:
        """Whether some item shows different images in different epochs."""
        if self.views == "first" or self.frames > 1:
            return False
        arrays = self.items.select_columns("views").with_format("arrow")  # without reading their bytes
        return any(pc.max(pc.list_value_length(part["views"])).as_py() for part in arrays.iter(1000))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: order.Position) -> Pair:
        epoch, requested = position
        unusable: list[UnusableItem] = []
        for step in range(len(self)):
            index = (self.replacements.get(requested, requested) + step) % len(self)
            try:
                return self._pair(epoch, index, requested, tuple(unusable))
            except UnreadableImage as error:
                unusable.append(UnusableItem(f"item {self.ids[index]}", error.reason, error.name))
        raise DataError(f"corpus: none of {len(self)} images can be read; the first: {unusable[0].reason}")

    def with_views(self, epoch: int, index: int, views: Views) -> Pair:
        """The pair of a row with views that `views_of` returned, perhaps in another process."""
        return self._pair(epoch, index, index, (), views)

    def _pair(
        self,
        epoch: int,
        index: int,
        requested: int,
        unusable: tuple[UnusableItem, ...],
        views: Views | None = None,
    ) -> Pair:
        image = second_view = None
        if self.pixels:
            image, second_view, unreadable = self.views_of(epoch, index) if views is None else views
            unusable += unreadable
        pool = self.caption_pools[index]
        choice = caption_sampling.choose_caption(pool, self.seed, epoch, index)
        text = pool.texts[choice]
        return Pair(
            image=image,
            text=text,
            group=self.groups[index],
            shown=choice,
            captions=caption_numbers(pool.texts) if self.captions is None else self.captions[index],
            index=index,
            id=self.ids[index],
            requested=requested,
            unusable=unusable,
            second_view=second_view,
            extras=self.extras_of(index, text, epoch),
        )

    def views_of(self, epoch: int, index: int) -> Views:
        """The image that an item shows in an epoch, and the second view where an objective needs one.

        Raises: UnreadableImage.
        """
        cached = None if self.cached_pixels is None else self.cached_pixels(index)
        if cached is not None and not self.extra_spec.second_view:
            return cached, None, ()
        images = ItemImages(self.items[index], self.smallest_side)
        image, unreadable = (cached, ()) if cached is not None else self._image(images, epoch, index)
        kind = self.extra_spec.second_view
        second = None if kind is None else self._second_view(kind, images, epoch, index)
        return image, second, unreadable

    def _second_view(self, kind: SecondView, images: ItemImages, epoch: int, index: int) -> Pixels:
        """An augmentation of the first readable image of the item, or of another one of its group."""
        if kind == "same_group":
            images = self._images_of_group(images, epoch, index)
        view = next(view for view in range(len(images)) if images.is_readable(view))
        draw = np.random.Generator(np.random.Philox(key=seeding.stable(self.seed, epoch, index, "second")))
        mirror = self.augmentation == "crop_flip"
        augmented = augmented_view(images.decode(view), draw, mirror, kind)
        return preprocess_image(augmented, self.preprocess, images.cells[view])

    def _images_of_group(self, images: ItemImages, epoch: int, index: int) -> ItemImages:
        """Those of another item of the group with a readable image, drawn by epoch; its own without one."""
        others = [other for other in self._group_members[self._own_group[index]] if other != index]
        if not others:
            return images
        first = seeding.choose(self.seed, epoch, index, len(others), "sibling")
        for other in (*others[first:], *others[:first]):
            candidate = ItemImages(self.items[other], self.smallest_side)
            if any(candidate.is_readable(view) for view in range(len(candidate))):
                return candidate
        return images

    @cached_property
    def _own_group(self) -> list[str]:
        """The place, patient or object of each item: the value of its group column."""
        groups: list[str] = self.items["group"][:]
        return groups

    @cached_property
    def _group_members(self) -> dict[str, list[int]]:
        """The rows of each group, in their order."""
        members: dict[str, list[int]] = {}
        for index, group in enumerate(self._own_group):
            members.setdefault(group, []).append(index)
        return members

    def _image(self, images: ItemImages, epoch: int, index: int) -> tuple[Pixels, tuple[UnusableItem, ...]]:
        """The image that an item shows in an epoch; an unreadable view is replaced by the next one."""
        if self.frames > 1:
            return self._frames(images, epoch, index)
        count = len(images) if self.views == "random" else 1
        first = 0 if self.fixed_view else seeding.choose(self.seed, epoch, index, count, "view")
        unreadable: list[UnusableItem] = []
        for view in (*range(first, count), *range(first)):
            try:
                return self._preprocessed(images, view, epoch, index), tuple(unreadable)
            except UnreadableImage as error:
                unreadable.append(self._unusable_view(index, view, error))
        raise UnreadableImage(unreadable[0].source, unreadable[0].reason)

    def _frames(self, images: ItemImages, epoch: int, index: int) -> tuple[Pixels, tuple[UnusableItem, ...]]:
        """The images of an item that are shown at once; an unreadable one is left out."""
        frames, unreadable = [], []
        for view in sample_frames(range(len(images)), self.frames):
            try:
                frames.append(self._preprocessed(images, view, epoch, index))
            except UnreadableImage as error:
                unreadable.append(self._unusable_view(index, view, error))
        if not frames:
            raise UnreadableImage(unreadable[0].source, unreadable[0].reason)
        return stack_frames(frames, self.frames), tuple(unreadable)

    def _unusable_view(self, index: int, view: int, error: UnreadableImage) -> UnusableItem:
        location = f"item {self.ids[index]}" + (f" view {view}" if view else "")
        return UnusableItem(location, error.reason, error.name)

    def _preprocessed(self, images: ItemImages, view: int, epoch: int, index: int) -> Pixels:
        image = images.decode(view)
        image = augment(image, self.augmentation, self.seed, epoch, index)
        return preprocess_image(image, self.preprocess, images.cells[view])


def preprocess_image(image: Image.Image, preprocess: Preprocess, cell: Mapping[str, Any]) -> Pixels:
    """The arrays that the model takes of an image; `cell` is its {path, bytes}, for the error.

    Raises: UnreadableImage for an image that cannot be resized for the model, as a sliver of one pixel.
    """
    try:
        return preprocess(image)
    except DataError as error:
        raise UnreadableImage(str(cell.get("path") or "image"), str(error)) from None
