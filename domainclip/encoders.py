"""Towers that are measured: embeddings that are computed once and never depend on who computed them.

Legend: n items, d width.

A matrix product may round differently when its shape changes, and one bit can turn a rank. So the towers
always see the same chunks of a set, whichever process has its turn, and there is no batch size to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from domainclip.data.images import decode
from domainclip.distributed import gather_objects, rank, world
from domainclip.errors import DataError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from domainclip.towers import Towers

_CHUNK = 32  # rows that go through a tower together
Part = TypeVar("Part")


class TowersEncoder:
    """Implements contracts.Encoder. Embeddings are kept: make a new one when weights have changed.

    Encoders that share a `kept` dictionary share the embeddings of towers whose weights are equal, so that
    a locked tower is run once for base and adapted model together.
    """

    def __init__(self, towers: Towers, kept: dict[Any, np.ndarray] | None = None) -> None:
        self.towers = towers
        self.scale = float(towers.scale.detach())
        self.bias = None if towers.bias is None else float(towers.bias.detach())
        self.preparation: str = towers.preprocess.fingerprint()
        self.image_key = (towers.fingerprint("image"), self.preparation)
        self.text_key = towers.fingerprint("text")
        self.kept: dict[Any, np.ndarray] = {} if kept is None else kept

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length.

        Raises: DataError when an image cannot be read.
        """
        if not self.knows(items) and (lost := len(items) - len(encode_images([self], items))):
            raise DataError(f"{lost} of {len(items)} images cannot be read: measure the readable ones")
        return self.kept[self.image_key, items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length; equal texts are encoded once."""
        key = (self.text_key, tuple(texts))
        if key not in self.kept:
            # Texts of like length stand together, for a chunk is padded to its longest.
            distinct = sorted(set(texts), key=lambda text: (len(text), text))
            rows = np.concatenate(_in_chunks(self._text_rows, distinct))
            place = {text: i for i, text in enumerate(distinct)}
            self.kept[key] = rows[[place[text] for text in texts]]
        return self.kept[key]

    def knows(self, items: Dataset) -> bool:
        """Whether the embeddings of these items are kept."""
        return (self.image_key, items._fingerprint) in self.kept

    def keep(self, items: Dataset, rows: np.ndarray) -> None:
        """Keeps the image embeddings (n, d) of these items."""
        self.kept[self.image_key, items._fingerprint] = rows

    def image_rows(self, prepared: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """(len(prepared), d) embeddings of one chunk of prepared images."""
        import torch

        batch = {name: torch.from_numpy(np.stack([one[name] for one in prepared])) for name in prepared[0]}
        return self._run(self.towers.encode_image, batch, "image")

    def _text_rows(self, texts: Sequence[str]) -> np.ndarray:
        return self._run(self.towers.encode_text, self.towers.tokenise(list(texts)), "text")

    def _run(self, encode: Callable[..., Tensor], batch: dict[str, Tensor], side: str) -> np.ndarray:
        import torch

        device = next(self.towers.parameters()).device
        learning = self.towers.training
        self.towers.eval()
        with torch.inference_mode():
            rows: np.ndarray = encode({name: value.to(device) for name, value in batch.items()}).cpu().numpy()
        self.towers.train(learning)
        if not np.isfinite(rows).all():
            raise ModelError(f"{self.towers.base}: an {side} embedding is not a finite number; retrain it")
        return rows


def encode_images(encoders: Sequence[TowersEncoder], items: Dataset) -> Dataset:
    """The items whose image can be read, their embeddings now kept by every encoder.

    A picture is decoded once, and prepared once for all encoders that prepare alike.
    """
    if all(encoder.knows(items) for encoder in encoders):
        return items
    different = {encoder.image_key: encoder for encoder in encoders}
    recipes = {encoder.preparation: encoder.towers.preprocess for encoder in encoders}

    def prepare(row: int) -> dict[str, dict[str, np.ndarray]] | None:
        try:
            picture = decode(items[row]["image"])
            return {key: preprocess(picture) for key, preprocess in recipes.items()}
        except DataError:
            return None

    def encode(rows: Sequence[int]) -> tuple[list[int], dict[Any, np.ndarray]]:
        good = {row: ready for row in rows if (ready := prepare(row)) is not None}
        if not good:
            return [], {}
        arrays = {
            key: encoder.image_rows([ready[encoder.preparation] for ready in good.values()])
            for key, encoder in different.items()
        }
        return list(good), arrays

    chunks = [chunk for chunk in _in_chunks(encode, range(len(items))) if chunk[0]]
    rows = [row for good, _ in chunks for row in good]
    readable = items if len(rows) == len(items) else items.select(rows, keep_in_memory=True)
    for encoder in encoders if chunks else ():
        encoder.keep(readable, np.concatenate([arrays[encoder.image_key] for _, arrays in chunks]))
    return readable


def _in_chunks(work: Callable[[Any], Part], rows: Sequence[Any]) -> list[Part]:
    """`work` on every chunk, shared out among the processes; what all of them found, in order."""
    starts = range(0, len(rows), _CHUNK)
    mine = {start: work(rows[start : start + _CHUNK]) for start in starts[rank() :: world()]}
    found = {start: part for parts in gather_objects(mine) for start, part in parts.items()}
    return [found[start] for start in starts]
