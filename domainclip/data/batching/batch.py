"""One training pair, and the batch of pairs that a process contributes to a step.

Legend: b pairs of one process's batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from domainclip.data.batching.extras import BatchExtras, PairExtras, join_extras, stack_extras
from domainclip.data.batching.matches import MatchKeys
from domainclip.data.quarantine import UnusableItem

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Pair:
    """One image with one of its captions."""

    image: dict[str, np.ndarray] | None
    text: str
    group: int  # the number of its group, or of its truth key
    shown: int  # the place of the text in `captions`
    captions: np.ndarray  # (p,) int64, the numbers of all captions that the item may show
    index: int
    id: str
    requested: int  # the row that the order requested; differs from `index` when its image is unreadable
    unusable: tuple[UnusableItem, ...] = ()
    second_view: dict[str, np.ndarray] | None = None  # another augmentation of the image, where required
    extras: PairExtras | None = None


@dataclass(frozen=True)
class Batch:
    """The pairs that one process contributes to a step."""

    image: dict[str, Tensor] | None  # (b, …) uint8 for each output of the preprocessing
    texts: list[str]
    keys: MatchKeys  # which pairs are not each other's negatives
    index: Tensor  # (b,) int64: the row of each pair
    ids: list[str]
    requested: Tensor  # (b,) int64: the row that the order requested
    unusable: list[UnusableItem] = field(default_factory=list)  # unreadable images that were replaced
    second_view: dict[str, Tensor] | None = None  # as `image`, of the second views
    extras: BatchExtras = field(default_factory=BatchExtras)

    def pinned(self) -> Batch:
        """The same batch with its images in pinned memory, from which a GPU copies while it computes."""
        return replace(self, image=_pinned(self.image), second_view=_pinned(self.second_view))


def collate(pairs: Sequence[Pair]) -> Batch:
    """One batch of pairs, in their order."""
    return Batch(
        image=_join_arrays([pair.image for pair in pairs], _stack),
        texts=[pair.text for pair in pairs],
        keys=MatchKeys.of(
            [pair.group for pair in pairs],
            [pair.shown for pair in pairs],
            [pair.captions for pair in pairs],
        ),
        index=torch.tensor([pair.index for pair in pairs]),
        ids=[pair.id for pair in pairs],
        requested=torch.tensor([pair.requested for pair in pairs]),
        unusable=[item for pair in pairs for item in pair.unusable],
        second_view=_join_arrays([pair.second_view for pair in pairs], _stack),
        extras=stack_extras([pair.extras for pair in pairs]),
    )


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, in order: of equal pairs, equal to `collate` of all of them."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        image=_join_arrays([batch.image for batch in batches], torch.cat),
        texts=[text for batch in batches for text in batch.texts],
        keys=MatchKeys.join(batch.keys for batch in batches),
        index=torch.cat([batch.index for batch in batches]),
        ids=[id for batch in batches for id in batch.ids],
        requested=torch.cat([batch.requested for batch in batches]),
        unusable=[item for batch in batches for item in batch.unusable],
        second_view=_join_arrays([batch.second_view for batch in batches], torch.cat),
        extras=join_extras([batch.extras for batch in batches]),
    )


def join_parts(parts: Iterator[Batch], parts_of_batch: int) -> Iterator[Batch]:
    """The batches that so many parts each make."""
    while several := list(islice(parts, parts_of_batch)):
        yield join_batches(several)


def _join_arrays(
    images: Sequence[dict[str, Array] | None], join: Callable[[list[Array]], Tensor]
) -> dict[str, Tensor] | None:
    """The arrays of all images joined by name; None when no image is loaded."""
    loaded = [image for image in images if image is not None]
    return {name: join([image[name] for image in loaded]) for name in loaded[0]} if loaded else None


def _pinned(image: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    return None if image is None else {name: array.pin_memory() for name, array in image.items()}


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
