"""Which texts of a batch are right for which of its images: pairs that must not be each other's negatives.

A text is right for an image when it is a caption of an item with the same truth key, or when the item of the
image may show the same caption itself, in this epoch or another. Where the card names no truth key, the group
takes its place: another image of a patient or object may show the same. It is a relation of images and
texts, not a partition of the pairs: of an item with a common and a rare caption, the common one is right for
all that have it, and the rare one is not.

Legend: b pairs, p captions of an item at most, r images, c texts, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip import seeding
from domainclip.data.text.captions import normalise

RowMask = Callable[[Tensor], Tensor]  # (k,) row numbers -> (k, columns) bool
_NO_CAPTION = -1  # the number of an empty caption; no pool holds it
_PADDING = -2


def number(kind: str, text: str) -> int:
    """A number of a text, below 2^63: the same in every process, batch and part of a corpus."""
    return seeding.stable(kind, text) >> 1


def caption_numbers(texts: Sequence[str]) -> np.ndarray:
    """(p,) int64: the number of each caption; captions that differ in capitals or spaces alone share one."""
    captions = [normalise(text) for text in texts]
    return np.array([number("caption", text) if text else _NO_CAPTION for text in captions], np.int64)


@dataclass(frozen=True)
class MatchKeys:
    """What decides which texts are right for which images, of each pair."""

    group: Tensor  # (b,) int64, the number of its truth key, or of its group where the card names no truth
    caption: Tensor  # (b,) int64, the number of the caption that it shows
    pool: Tensor  # (b, p) int64, the numbers of all captions that its item may show, then padding

    @classmethod
    def of(cls, groups: Sequence[int], shown: Sequence[int], pools: Sequence[np.ndarray]) -> MatchKeys:
        """The keys of pairs that show caption `shown` of their pool."""
        captions = [int(pool[choice]) for pool, choice in zip(pools, shown, strict=True)]
        rows = [torch.from_numpy(pool[pool != _NO_CAPTION]) for pool in pools]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=_PADDING)
        return cls(torch.tensor(groups), torch.tensor(captions), padded)

    @classmethod
    def of_groups(cls, group: Tensor) -> MatchKeys:
        """The keys of pairs (b,) of which only the groups are known."""
        return cls(group, torch.full_like(group, _NO_CAPTION), group.new_empty(len(group), 0))

    @classmethod
    def join(cls, batches: Iterable[MatchKeys]) -> MatchKeys:
        """The keys of several batches as those of one, in order."""
        parts = list(batches)
        width = max(part.pool.shape[1] for part in parts)
        return cls(
            torch.cat([part.group for part in parts]),
            torch.cat([part.caption for part in parts]),
            torch.cat([part.padded(width).pool for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.group)

    def __getitem__(self, rows: slice) -> MatchKeys:
        return MatchKeys(self.group[rows], self.caption[rows], self.pool[rows])

    def padded(self, width: int) -> MatchKeys:
        """The same keys with pools of at least `width` columns."""
        missing = max(0, width - self.pool.shape[1])
        return MatchKeys(self.group, self.caption, F.pad(self.pool, (0, missing), value=_PADDING))

    def map(self, change: Callable[[Tensor], Tensor]) -> MatchKeys:
        """The same keys with each tensor changed, such as moved to a device."""
        return MatchKeys(change(self.group), change(self.caption), change(self.pool))


@dataclass(frozen=True)
class Matches:
    """The relation between the images and the texts of pairs, one block of rows at a time.

    Captions are numbered once; a block costs k · columns steps, whatever the length of the pools.
    """

    images: MatchKeys  # r
    texts: MatchKeys  # c; those of the same pairs, except where texts of another process are compared

    @classmethod
    def within(cls, keys: MatchKeys) -> Matches:
        """The relation between the images and the texts of the same pairs."""
        return cls(keys, keys)

    @classmethod
    def of_groups(cls, group: Tensor) -> Matches:
        """The relation of pairs (b,) of which only the groups are known."""
        return cls.within(MatchKeys.of_groups(group))

    def right_texts(self, images: Tensor) -> Tensor:
        """(k, c) bool: the texts that are right for each of some images (k,)."""
        number, pool = self._numbers
        member = pool.new_zeros(len(images), len(number) + 1, dtype=torch.bool)
        member.scatter_(1, pool[images], True)
        return member[:, number] | (self.images.group[images][:, None] == self.texts.group)

    def right_images(self, texts: Tensor) -> Tensor:
        """(k, r) bool: the images that each of some texts (k,) is right for."""
        number, pool = self._numbers
        k = len(texts)
        wanted = number[texts]
        column = torch.full((len(number) + 1,), k, device=number.device)  # of each number in this block
        column[wanted] = torch.arange(k, device=number.device)  # of equal numbers, any one of theirs
        member = pool.new_zeros(len(pool), k + 1, dtype=torch.bool)
        member.scatter_(1, column[pool], True)
        return member[:, column[wanted]].T | (self.texts.group[texts][:, None] == self.images.group)

    def either(self, pairs: Tensor) -> Tensor:
        """(k, b) bool: pairs that share a right text, in one direction at least, with each of some pairs."""
        return self.right_texts(pairs) | self.right_images(pairs)

    @cached_property
    def _numbers(self) -> tuple[Tensor, Tensor]:
        """(c,) a number below c of each text, equal for equal captions; (r, p) those of the pools, else c."""
        captions = self.texts.caption.sort().values
        last = len(captions) - 1
        number = torch.searchsorted(captions, self.texts.caption)
        place = torch.searchsorted(captions, self.images.pool)
        is_shown = captions[place.clamp_max(last)] == self.images.pool
        return number, torch.where(is_shown, place, len(captions))


def why_no_negatives(
    texts: Iterable[Sequence[str]],
    groups: Sequence[str],
    labels: Sequence[Sequence[str]] | None = None,
) -> str:
    """Why no pair can be a negative of another, in words; empty when some can.

    `texts` are all that each item may show. With `labels`, items with the same classes match as well. Of a
    corpus with negatives, few items are read.
    """
    n = len(groups)
    if n == 1:
        return "there is only one training pair"
    if _all_equal(groups):
        return f"all {n} training pairs are of one group"
    if _all_equal(frozenset(map(normalise, item_texts)) for item_texts in texts):
        return f"all {n} training pairs have the same captions"
    if labels is not None and all(labels) and _all_equal(map(frozenset, labels)):
        return f"all {n} training pairs have the same labels"
    return ""


def _all_equal(values: Iterable[object]) -> bool:
    """Whether there are values, and all of them are equal."""
    remaining = iter(values)
    nothing = object()
    first = next(remaining, nothing)
    return first is not nothing and all(value == first for value in remaining)
