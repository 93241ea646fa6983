"""Encoder of evaluation sets: every embedding is computed once, and independently of the number of processes.

Legend: n items, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from torch import Tensor

from domainclip.data.interfaces import UnreadableImages
from domainclip.distributed.collectives import gather_objects, rank
from domainclip.evaluation import chunks
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.model_encoder import ModelEncoder
from domainclip.evaluation.readable_images import encode_readable

if TYPE_CHECKING:  # loads transformers, which commands that only read a run folder do without
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality

BLOCK = 64 * chunks.SIZE  # rows of a set that a job of an array encodes at least


class CachedEncoder(ModelEncoder):
    """An Encoder whose embeddings are cached: make a new one when the weights have changed.

    Encoders that share a `cache` share the embeddings of towers with equal weights. Without one, an encoder
    has a cache in memory to itself.
    """

    def __init__(
        self,
        model: DualEncoder,
        cache: EmbeddingCache | None = None,
        towers: Mapping[Modality, Any] | None = None,
    ) -> None:
        """`towers` are keys of the towers' weights, instead of hashes, for a cache in memory."""
        self.cache = EmbeddingCache() if cache is None else cache
        super().__init__(model, self.cache.precision)
        image = towers["image"] if towers else model.fingerprint("image")
        text = towers["text"] if towers else model.fingerprint("text")
        space = () if model.space is None else (model.space.fingerprint(),)
        self.image_key = (image, self.preprocessing, self.precision, *space)
        self.text_key = (text, model.text_tokenizer.fingerprint(), self.precision, *space)
        self.readable: dict[str, Dataset] = {}  # by fingerprint of a set: its readable items, if not all are

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length.

        Raises: UnreadableImages.
        """
        if not self.has(items):
            readable = encode_images([self], items)
            if lost := len(items) - len(readable):
                raise UnreadableImages(lost, items, readable)
        return self.cache.memory[self.image_key, items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length; equal texts are encoded once."""
        return self._cached_texts(self.text_key, texts, self.encode_text)

    def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32, not normalised; equal texts are encoded once."""
        return self._cached_texts(("raw", self.text_key), texts, self.model.encode_text_unnormalized)

    def has(self, items: Dataset) -> bool:
        """Whether the image embeddings of these items are in memory."""
        return (self.image_key, items._fingerprint) in self.cache.memory

    def put(self, items: Dataset, embeddings: np.ndarray) -> None:
        """Store the image embeddings (n, d) of these items in memory."""
        key = (self.image_key, items._fingerprint)
        self.cache.memory[key] = embeddings
        if self.cache.disk is None:
            self.cache.unwritten.add(key)

    def write_remaining(self, items: Dataset) -> None:
        """Write embeddings in memory to the disk cache, if a short-lived model of equal weights made them."""
        key = (self.image_key, items._fingerprint)
        if self.cache.disk is not None and key in self.cache.unwritten:
            name = _entry_names({self.image_key: self}, items)[self.image_key]
            self.write_disk(name, self.cache.memory[key])
            self.cache.unwritten.discard(key)

    def read_disk(self, name: str | None, rows: int) -> np.ndarray | None:
        """An entry of the disk cache, if all processes can read it: one that computed it alone would hang."""
        if self.cache.disk is None or name is None:
            return None
        embeddings = self.cache.disk.read(name, rows)
        return embeddings if all(gather_objects(embeddings is not None)) else None

    def write_disk(self, name: str | None, embeddings: np.ndarray) -> None:
        """Write an entry of the disk cache, on the first process."""
        if self.cache.disk is not None and name is not None and rank() == 0:
            self.cache.disk.write(name, embeddings)

    def _cached_texts(self, tower: Any, texts: Sequence[str], encode: Callable[..., Tensor]) -> np.ndarray:
        key = (tower, tuple(texts))
        if key not in self.cache.memory:
            # Sorted by length, since a chunk is padded to its longest text.
            distinct = sorted(set(texts), key=lambda text: (len(text), text))
            disk = self.cache.disk
            name = disk.texts_key(tower, distinct, self.device) if disk else None
            embeddings = self.read_disk(name, len(distinct))
            if embeddings is None:
                work = partial(self.encode_text_chunk, encode=encode)
                embeddings = np.concatenate(chunks.map_chunks(work, distinct))
                self.write_disk(name, embeddings)
            index = {text: i for i, text in enumerate(distinct)}
            self.cache.memory[key] = embeddings[[index[text] for text in texts]]
        return self.cache.memory[key]


def encode_images(encoders: Sequence[CachedEncoder], items: Dataset) -> Dataset:
    """Encode a set for all encoders in one pass; the items whose image can be read.

    Afterwards every encoder has the embeddings of the returned items in memory.
    """
    whole = items._fingerprint
    items = next((encoder.readable[whole] for encoder in encoders if whole in encoder.readable), items)
    if all(encoder.has(items) for encoder in encoders):
        for encoder in encoders if items._fingerprint == whole else ():
            encoder.write_remaining(items)
        return items
    items, embeddings = _read_or_encode({encoder.image_key: encoder for encoder in encoders}, items)
    for encoder in encoders if len(items) else ():
        encoder.put(items, embeddings[encoder.image_key])
        if items._fingerprint != whole:
            encoder.readable[whole] = items
    return items


def _read_or_encode(
    encoders: Mapping[Any, CachedEncoder], items: Dataset
) -> tuple[Dataset, dict[Any, np.ndarray]]:
    """The readable items and their embeddings by image key, from the disk cache or computed."""
    names = _entry_names(encoders, items)
    stored = _read_entries(encoders, names, len(items))
    if len(stored) == len(encoders):
        return items, stored
    missing = {key: encoder for key, encoder in encoders.items() if key not in stored}
    rows, computed = _encode_rest(missing, items)
    if len(rows) < len(items):
        # An unreadable image may be readable once a decoder is installed: such a set is not written to disk.
        items = items.select(rows, keep_in_memory=True)
        stored = {key: embeddings[rows] for key, embeddings in stored.items()}
    else:
        for key, embeddings in computed.items():
            encoders[key].write_disk(names[key], embeddings)
    return items, stored | computed


def _entry_names(encoders: Mapping[Any, CachedEncoder], items: Dataset) -> dict[Any, str | None]:
    """The entry of the disk cache for each encoder; None without a disk cache."""
    return {
        key: disk.images_key(key, items, encoder.device, encoder.model.frames > 1)
        if (disk := encoder.cache.disk)
        else None
        for key, encoder in encoders.items()
    }


def _read_entries(
    encoders: Mapping[Any, CachedEncoder], names: Mapping[Any, str | None], rows: int
) -> dict[Any, np.ndarray]:
    read = {key: encoder.read_disk(names[key], rows) for key, encoder in encoders.items()}
    return {key: embeddings for key, embeddings in read.items() if embeddings is not None}


def blocks(items: Dataset) -> list[range]:
    """The rows of a set in the blocks that jobs of an array encode; a set of one block has no parts."""
    return [range(at, min(at + BLOCK, len(items))) for at in range(0, len(items), BLOCK)]


def encode_block(encoders: Sequence[CachedEncoder], items: Dataset, block: range) -> None:
    """Encode one block of a set for all encoders into the disk cache, if all of its images are readable."""
    by_key = {encoder.image_key: encoder for encoder in encoders}
    _read_or_encode(by_key, items.select(block, keep_in_memory=True))


def _encode_rest(
    encoders: Mapping[Any, CachedEncoder], items: Dataset
) -> tuple[list[int], dict[Any, np.ndarray]]:
    """The readable rows and their embeddings by image key; blocks that jobs of an array encoded are read.

    A block has whole chunks, so a model encodes the same chunks either way.
    """
    memory = next(iter(encoders.values())).cache.pixels
    stored: dict[int, dict[Any, np.ndarray]] = {}  # by first row
    for block in blocks(items) if len(items) > BLOCK else ():
        names = _entry_names(encoders, items.select(block, keep_in_memory=True))
        entries = _read_entries(encoders, names, len(block))
        if len(entries) == len(encoders):
            stored[block.start] = entries
    if not stored:
        return encode_readable(encoders, items, memory)
    rest = [row for block in blocks(items) if block.start not in stored for row in block]
    numbers, computed = (
        encode_readable(encoders, items.select(rest, keep_in_memory=True), memory) if rest else ([], {})
    )
    read = [row for start in stored for row in range(start, min(start + BLOCK, len(items)))]
    rows = np.array([*(rest[number] for number in numbers), *read])
    order = np.argsort(rows)
    joined = {
        key: np.concatenate(
            [*([computed[key]] if numbers else ()), *(entry[key] for entry in stored.values())]
        )
        for key in encoders
    }
    return rows[order].tolist(), {key: embeddings[order] for key, embeddings in joined.items()}
