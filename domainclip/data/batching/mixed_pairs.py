"""The pairs of several corpora, of which each fills a fixed share of every batch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import ClassVar, TypeVar

from datasets import concatenate_datasets

from domainclip.data.batching import order
from domainclip.data.batching.batch import Pair
from domainclip.data.batching.extras import PairExtras
from domainclip.data.batching.pairs import CachedImage, Pairs, Pixels, Preprocess
from domainclip.data.batching.sequences import ComputedSequence

T = TypeVar("T")


class MixedPairs(Pairs):
    """The pairs of the corpus, then those of each corpus that is mixed into it.

    Replay: pairs of earlier data, trained on together with the new ones. [arXiv:1902.10486]

    Every pair is drawn by its own corpus: its captions, views and group are those of its own card. A caption
    that two corpora have in common is right for the images of both.
    """

    citation: ClassVar[str] = "arXiv:1902.10486"

    def __init__(self, sources: Sequence[Pairs], shares: Sequence[float]) -> None:
        """`shares` of a batch, of each source but the first, which fills the rest."""
        vars(self).update(vars(sources[0]))  # the options of the recipe are those of every source
        self.sources = tuple(sources)
        self.shares = tuple(shares)
        self.starts = [0, *accumulate(len(source) for source in sources)]
        self.items = concatenate_datasets([source.items for source in sources])
        self.caption_pools = _Joined([source.caption_pools for source in sources])
        self.ids = _Joined([source.ids for source in sources])
        self.groups = _Joined([source.groups for source in sources])
        self.captions = None  # each source has its own

    @property
    def epoch_pairs(self) -> float:
        """The pairs that are trained on while each pair of the corpus is shown once."""
        return len(self.sources[0]) / (1 - sum(self.shares))

    @property
    def views_change(self) -> bool:
        """Whether some item of any source shows different images in different epochs."""
        return any(source.views_change for source in self.sources)

    def positions(self, step: int, batch_size: int) -> list[order.Position]:
        """The (epoch of its source, index) of every pair in the batch of a step."""
        sizes, seeds = [len(source) for source in self.sources], [source.seed for source in self.sources]
        return order.mixed_positions(step, batch_size, sizes, seeds, self.shares)

    def without_pixels(self, replacements: Mapping[int, int]) -> MixedPairs:
        """The same pairs without images; an unreadable image is replaced by one of the same source."""
        parts = []
        for source, start in zip(self.sources, self.starts, strict=False):
            rows = range(start, start + len(source))
            own = {row - start: to - start for row, to in replacements.items() if row in rows}
            parts.append(source.without_pixels(own))
        return MixedPairs(parts, self.shares)

    def for_model(self, preprocess: Preprocess) -> MixedPairs:
        """The same pairs for another model; see `Pairs.for_model`."""
        return MixedPairs([source.for_model(preprocess) for source in self.sources], self.shares)

    def with_cached_pixels(self, cached: CachedImage) -> MixedPairs:
        """The same pairs with preprocessed images from a cache of all sources."""
        parts = [
            source.with_cached_pixels(_OfSource(cached, start))
            for source, start in zip(self.sources, self.starts, strict=False)
        ]
        mixed = MixedPairs(parts, self.shares)
        mixed.cached_pixels = cached
        return mixed

    def extras_of(self, index: int, text: str, epoch: int) -> PairExtras | None:
        """The extras of a pair, as its source makes them."""
        number, local = self._source_of(index)
        return self.sources[number].extras_of(local, text, epoch)

    def __getitem__(self, position: order.Position) -> Pair:
        epoch, requested = position
        number, local = self._source_of(requested)
        pair, start = self.sources[number][epoch, local], self.starts[number]
        return replace(pair, index=start + pair.index, requested=requested)

    def _source_of(self, index: int) -> tuple[int, int]:
        number = bisect_right(self.starts, index) - 1
        return number, index - self.starts[number]


class _Joined(ComputedSequence[T]):
    """Several sequences as one, without a copy."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def at(self, index: int) -> T:
        number = bisect_right(self.starts, index) - 1
        return self.parts[number][index - self.starts[number]]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)


@dataclass(frozen=True)
class _OfSource:
    """The cached images of one source, whose first row in the cache is `start`."""

    cached: CachedImage
    start: int

    def __call__(self, index: int) -> Pixels | None:
        return self.cached(self.start + index)
