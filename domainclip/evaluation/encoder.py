"""Towers that are measured: embeddings that are computed once and never depend on who computed them.

Legend: n items, d width.

A matrix product may round differently when its shape changes, and one bit can turn a rank. So the towers
always see the same chunks of a set, whichever process has its turn, and there is no batch size to choose.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from domainclip.data.images import frames
from domainclip.data.images.decode import decode_image
from domainclip.distributed.collectives import gather_objects, keep_alive, process_count, rank
from domainclip.errors import DataError, ModelError
from domainclip.evaluation.embedding_cache import EmbeddingCache

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from domainclip.models.dual_encoder import DualEncoder

_CHUNK = 32  # rows that go through a tower together
_AHEAD = 4  # chunks that are decoded while a tower works
Part = TypeVar("Part")


class UnreadableImages(DataError):
    """Some pictures of a set cannot be decoded; `readable` are the others, already encoded."""

    def __init__(self, lost: int, items: Dataset, readable: Dataset) -> None:
        super().__init__(f"{lost} of {len(items)} images cannot be read: measure the readable ones")
        self.readable = readable


class CachedEncoder:
    """An Encoder whose embeddings are cached: make a new one when the weights have changed.

    Encoders that share a `cache` share the embeddings of towers with equal weights; without one, each has its
    own, in memory.
    """

    def __init__(self, model: DualEncoder, cache: EmbeddingCache | None = None) -> None:
        self.model = model
        self.cache = EmbeddingCache() if cache is None else cache
        self.scale = float(model.scale.detach())
        self.bias = None if model.bias is None else float(model.bias.detach())
        shown = f", {model.frames} pictures" if model.frames > 1 else ""
        self.preparation: str = model.image_preprocessor.fingerprint() + shown
        self.image_key = (model.fingerprint("image"), self.preparation)
        self.text_key = (model.fingerprint("text"), model.text_tokenizer.fingerprint())
        self.readable: dict[str, Dataset] = {}  # by set: its readable items, where some are not

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length.

        Raises: DataError when an image cannot be read.
        """
        if not self.has(items):
            readable = encode_images([self], items)
            if lost := len(items) - len(readable):
                raise UnreadableImages(lost, items, readable)
        return self.cache.memory[self.image_key, items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length; equal texts are encoded once."""
        return self._known(self.text_key, texts, self.model.encode_text)

    def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32, each as long as the tower made it: some protocols average such vectors."""
        return self._known(("raw", self.text_key), texts, self.model.encode_text_unnormalized)

    def _known(self, tower: Any, texts: Sequence[str], encode: Callable[..., Tensor]) -> np.ndarray:
        key = (tower, tuple(texts))
        if key not in self.cache.memory:
            # Texts of like length stand together, for a chunk is padded to its longest.
            distinct = sorted(set(texts), key=lambda text: (len(text), text))
            name = disk.texts_key(tower, distinct, self.device) if (disk := self.cache.disk) else None
            rows = self._stored(name, len(distinct))
            if rows is None:
                rows = np.concatenate(_in_chunks(partial(self._text_rows, encode=encode), distinct))
                self._write(name, rows)
            place = {text: i for i, text in enumerate(distinct)}
            self.cache.memory[key] = rows[[place[text] for text in texts]]
        return self.cache.memory[key]

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(n, rows, columns, d) float32 of unit length, a vector for each patch of what the model sees, and
        (n, 4) where that lies in each picture: left, top, right, bottom, in pixels. Not kept: they are many.

        Raises: DataError when an image cannot be read, ModelError for a family without a grid of patches.
        """
        import torch

        from domainclip.models import patch_embeddings

        def work(rows: Sequence[int]) -> tuple[np.ndarray, list[tuple[float, float, float, float]]]:
            pictures = [decode_image(items[row]["image"]) for row in rows]
            prepared = [self.model.image_preprocessor(picture) for picture in pictures]
            batch = {key: torch.from_numpy(np.stack([one[key] for one in prepared])) for key in prepared[0]}
            windows = [self.model.image_preprocessor.window(picture.size) for picture in pictures]
            return self._run(partial(patch_embeddings.encode_patches, self.model), batch, "image"), windows

        found = _in_chunks(work, range(len(items)))
        vectors = np.concatenate([rows for rows, _ in found])
        windows = np.array([window for _, part in found for window in part])
        return vectors.reshape(len(vectors), *patch_embeddings.patch_grid(self.model), -1), windows

    @property
    def device(self) -> str:
        """Where the weights are: kernels of another device round differently."""
        from domainclip.models import onednn

        return onednn.device_key(next(self.model.parameters()).device.type)

    def _stored(self, name: str | None, rows: int) -> np.ndarray | None:
        """What the disk holds, if every process finds it: one that computed alone would wait forever."""
        if self.cache.disk is None or name is None:
            return None
        found = self.cache.disk.read(name, rows)
        return found if all(gather_objects(found is not None)) else None

    def _write(self, name: str | None, rows: np.ndarray) -> None:
        if self.cache.disk is not None and name is not None and rank() == 0:
            self.cache.disk.write(name, rows)

    def has(self, items: Dataset) -> bool:
        """Whether the embeddings of these items are in memory."""
        return (self.image_key, items._fingerprint) in self.cache.memory

    def put(self, items: Dataset, rows: np.ndarray) -> None:
        """Hold the image embeddings (n, d) of these items in memory."""
        self.cache.memory[self.image_key, items._fingerprint] = rows

    def prepare(self, pictures: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """What the image tower takes of an item: of its first picture, or of all of a study."""
        if self.model.frames == 1:
            return self.model.image_preprocessor(pictures[0])
        return frames.stack_frames(
            [self.model.image_preprocessor(one) for one in pictures], self.model.frames
        )

    def image_rows(self, prepared: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """(len(prepared), d) embeddings of one chunk of prepared images."""
        import torch

        batch = {name: torch.from_numpy(np.stack([one[name] for one in prepared])) for name in prepared[0]}
        return self._run(self.model.encode_image, batch, "image")

    def _text_rows(self, texts: Sequence[str], encode: Callable[..., Tensor]) -> np.ndarray:
        return self._run(encode, self.model.text_tokenizer(list(texts)), "text")

    def _run(self, encode: Callable[..., Tensor], batch: dict[str, Tensor], side: str) -> np.ndarray:
        import torch

        device = next(self.model.parameters()).device
        learning = self.model.training
        self.model.eval()
        with torch.inference_mode():
            rows: np.ndarray = encode({name: value.to(device) for name, value in batch.items()}).cpu().numpy()
        self.model.train(learning)
        if not np.isfinite(rows).all():
            raise ModelError(f"{self.model.base}: an {side} embedding is not a finite number; retrain it")
        return rows


def encode_images(encoders: Sequence[CachedEncoder], items: Dataset) -> Dataset:
    """The items whose image can be read, their embeddings now kept by every encoder.

    A picture is decoded once, and prepared once for all encoders that prepare alike.
    """
    whole = items._fingerprint
    items = next((encoder.readable[whole] for encoder in encoders if whole in encoder.readable), items)
    if all(encoder.has(items) for encoder in encoders):
        return items
    different = {encoder.image_key: encoder for encoder in encoders}
    names = {
        key: disk.images_key(key, items, encoder.device, encoder.model.frames > 1)
        if (disk := encoder.cache.disk)
        else None
        for key, encoder in different.items()
    }
    found: dict[Any, np.ndarray] = {}
    for key, encoder in different.items():
        if (rows := encoder._stored(names[key], len(items))) is not None:
            found[key] = rows
    if len(found) < len(different):
        rest = {key: encoder for key, encoder in different.items() if key not in found}
        good, fresh = _computed(rest, items)
        if len(good) < len(items):
            # What cannot be read today may be when a decoder was installed: such a set is not kept.
            items = items.select(good, keep_in_memory=True)
            found = {key: rows[good] for key, rows in found.items()}
        else:
            for key, encoder in rest.items():
                encoder._write(names[key], fresh[key])
        found |= fresh
    for encoder in encoders if len(items) else ():
        encoder.put(items, found[encoder.image_key])
        if items._fingerprint != whole:
            encoder.readable[whole] = items
    return items


def _computed(different: dict[Any, CachedEncoder], items: Dataset) -> tuple[list[int], dict[Any, np.ndarray]]:
    """The rows that can be read, and their embeddings by image key."""
    recipes = {encoder.preparation: encoder for encoder in different.values()}
    counts = {encoder.model.frames for encoder in recipes.values()}

    def prepare(row: int) -> dict[str, dict[str, np.ndarray]] | None:
        try:
            pictures = _decoded(items[row], counts)
            return {key: one.prepare(pictures[one.model.frames]) for key, one in recipes.items()}
        except DataError:
            return None

    def encode(rows: Sequence[tuple[int, Any]]) -> tuple[list[int], dict[Any, np.ndarray]]:
        good = {row: ready for row, ready in rows if ready is not None}
        if not good:
            return [], {}
        arrays = {
            key: encoder.image_rows([ready[encoder.preparation] for ready in good.values()])
            for key, encoder in different.items()
        }
        return list(good), arrays

    def ahead(chunks: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Any]]]:
        for chunk, prepared in zip(chunks, _ahead(prepare, chunks), strict=True):
            yield list(zip(chunk, prepared, strict=True))

    chunks = [chunk for chunk in _in_chunks(encode, range(len(items)), ahead) if chunk[0]]
    rows = [row for good, _ in chunks for row in good]
    return rows, {key: np.concatenate([arrays[key] for _, arrays in chunks]) for key in different if chunks}


def _decoded(row: dict[str, Any], counts: set[int]) -> dict[int, list[Image.Image]]:
    """By how many pictures are shown of an item: those of them that can be read.

    Raises: DataError when none of them can.
    """
    pictures = [row["image"], *(row["views"] if max(counts) > 1 else ())]
    shown = {count: frames.sample_frames(range(len(pictures)), count) for count in counts}
    found, fault = {}, DataError("no picture")
    for at in sorted({at for own in shown.values() for at in own}):
        try:
            found[at] = decode_image(pictures[at])
        except DataError as error:
            fault = error
    readable = {count: [found[at] for at in own if at in found] for count, own in shown.items()}
    if not all(readable.values()):
        raise fault
    return readable


def _ahead(load: Callable[[int], Part], chunks: Sequence[Sequence[int]]) -> Iterator[list[Part]]:
    """The loaded rows of each chunk; the next few are being decoded while a tower works on this one."""
    # Decoders switch warnings while they work, and threads would leave them switched.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[list[Future[Part]]] = deque()
        for chunk in chunks:
            waiting.append([pool.submit(load, row) for row in chunk])
            if len(waiting) > _AHEAD:
                yield [one.result() for one in waiting.popleft()]
        while waiting:
            yield [one.result() for one in waiting.popleft()]


def _in_chunks(
    work: Callable[[Any], Part],
    rows: Sequence[Any],
    ahead: Callable[[Sequence[Any]], Iterator[Any]] = iter,
) -> list[Part]:
    """`work` on every chunk, shared out among the processes; what all of them found, in order."""
    starts = range(0, len(rows), _CHUNK)
    own = starts[rank() :: process_count()]
    ready = ahead([rows[start : start + _CHUNK] for start in own])
    with keep_alive("embeddings of all processes"):
        mine = {start: work(chunk) for start, chunk in zip(own, ready, strict=True)}
    found = {start: part for parts in gather_objects(mine) for start, part in parts.items()}
    return [found[start] for start in starts]
