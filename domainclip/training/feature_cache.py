"""Disk cache for the outputs of frozen layers. All processes fill an entry together; later runs reuse it.

For a tower that is locked whole these are its embeddings; for one whose last layers learn, the hidden states
that reach the first of them. They are made of images and captions, so they stay in the user's own cache.

Legend: n items, m texts, t tokens or patches, w width of a tower, d width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainclip import disk_cache
from domainclip.data.batching.batch import Batch, collate
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.workers import PAIRS_PER_TASK, Workers, worker_count
from domainclip.data.images.decode import DECODING_VERSION
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives
from domainclip.models import onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_model import ImageModel
from domainclip.models.layers import Modality
from domainclip.models.precision import Precision, computing_in, largest_cosine_distance
from domainclip.models.text_tokenizer import TokenCache
from domainclip.training.cache_entry import CacheBudget, load_or_fill

_BATCH = 2 * PAIRS_PER_TASK  # items that are encoded together
_SAMPLE = 32  # items that are encoded in fp32 as well, to state how far another precision is from it


@dataclass(frozen=True)
class ImageFeatures:
    """Cached features of the training images."""

    rows: np.ndarray  # (n, d) embeddings, or (n, t, w) hidden states, float32, memory-mapped
    replacements: dict[int, int]  # by row of an unreadable image: the row that stands in for it
    unusable: list[UnusableItem]


@dataclass(frozen=True)
class TextFeatures:
    """Cached features of texts: embeddings (m, d), or the hidden states of all their tokens, concatenated."""

    rows: np.ndarray  # float32, memory-mapped
    starts: dict[str, int]  # by text: its first row
    tokens: TokenCache

    def embeddings(self, texts: Sequence[str]) -> Tensor:
        """Return (len(texts), d); only for a text tower that is locked whole."""
        return torch.from_numpy(self.rows[[self.starts[text] for text in texts]])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return self.tokens.lengths(texts)

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the tokenizer's output and (m, t, w) `hidden`, for a tower that starts at a later layer."""
        batch = self.tokens.batch(texts)
        hidden = np.zeros((*batch["input_ids"].shape, self.rows.shape[1]), np.float32)
        pads_left = self.tokens.pads_left
        for row, text, length in zip(hidden, texts, self.lengths(texts), strict=True):
            place = slice(len(row) - length, None) if pads_left else slice(length)
            row[place] = self.rows[self.starts[text] : self.starts[text] + length]
        return {**batch, "hidden": torch.from_numpy(hidden)}


@dataclass(frozen=True)
class TeacherFeatures:
    """A teacher's embeddings of the training pairs."""

    image: np.ndarray  # (n, t)
    text: TextFeatures
    scale: float


def cache_image_features(
    model: DualEncoder | ImageModel,
    pairs: Pairs,
    digests: Sequence[str],
    budget: CacheBudget,
    workers: Workers = 0,
    precision: Precision = "fp32",
) -> ImageFeatures | None:
    """Return the features of every training image; None when they cannot be cached.

    `digests` identify the images, in order. Each row is the image that `pairs` show in the first epoch. In
    another precision than fp32, the budget notes how far those of a few images lie from fp32.
    """
    model.eval()
    few = collate([pairs[0, row] for row in range(1 if precision == "fp32" else min(_SAMPLE, len(pairs)))])
    example = _encode_images(model, few, precision)
    shape = (len(pairs), *example.shape[1:])
    decoding = [DECODING_VERSION, pairs.smallest_side]
    fingerprint = model.image_preprocessor.fingerprint()
    key = [*_key(model, "image", precision), *decoding, fingerprint, list(digests)]
    description = f"{_description(model, 'image')} of {len(pairs):,} images"
    if not budget.reserve(description, shape, disk_cache.key(*key)):
        return None
    shown: dict[int, int] = {}  # by row: the row whose image stands there

    def fill(rows: np.ndarray) -> None:
        local = list(range(len(pairs)))[collectives.rank() :: collectives.process_count()]
        order = [[(0, row) for row in local[at : at + _BATCH]] for at in range(0, len(local), _BATCH)]
        count = worker_count(workers, len(local), _bytes(few) // len(few.index))
        for batch in DataLoader(pairs, batch_sampler=order, collate_fn=collate, num_workers=count):
            requested = batch.requested.tolist()
            rows[requested] = _encode_images(model, batch, precision)
            shown.update(zip(requested, batch.index.tolist(), strict=True))

    rows = load_or_fill(disk_cache.key(*key), shape, np.float32, fill, budget)
    if rows is None:
        return None
    if precision != "fp32":
        exact = _encode_images(model, few, "fp32")
        budget.notes.append(_parity_note(precision, example, exact, f"{len(few.index)} images"))

    def fill_index(index: np.ndarray) -> None:
        """Images are read again only where the rows above existed already."""
        for share in collectives.gather_objects(shown):
            shown.update(share)
        index[:] = [shown[row] if row in shown else pairs[0, row].index for row in range(len(pairs))]

    index = load_or_fill(
        disk_cache.key(*key, "index"),
        (len(pairs),),
        np.int64,
        fill_index,
        budget,
        first_process_writes=True,
    )
    return None if index is None else _image_features(rows, index, pairs)


def _bytes(batch: Batch) -> int:
    return sum(array.nbytes for array in (batch.image or {}).values())


def _image_features(rows: np.ndarray, index: np.ndarray, pairs: Pairs) -> ImageFeatures:
    replacements = {int(row): int(index[row]) for row in np.flatnonzero(index != np.arange(len(pairs)))}
    unusable = {item.location: item for row in replacements for item in pairs[0, row].unusable}
    return ImageFeatures(rows, replacements, list(unusable.values()))


def cache_text_features(
    model: DualEncoder,
    tokens: TokenCache,
    texts: Sequence[str],
    budget: CacheBudget,
    precision: Precision = "fp32",
) -> TextFeatures | None:
    """Return the features of the distinct texts; None when they cannot be cached.

    In another precision than fp32, the budget notes how far those of a few texts lie from fp32.
    """
    model.eval()
    distinct = sorted(set(texts))
    tokens.add(distinct)
    by_token = model.first_trainable_layer("text") is not None  # hidden states, one for each token
    lengths = tokens.lengths(distinct) if by_token else [1] * len(distinct)
    starts = dict(zip(distinct, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    shape = (sum(lengths), _encode_texts(model, tokens, distinct[:1], precision).shape[-1])
    name = disk_cache.key(*_key(model, "text", precision), model.text_tokenizer.fingerprint(), distinct)
    if not budget.reserve(f"{_description(model, 'text')} of {len(distinct):,} texts", shape, name):
        return None
    # Texts of similar length share a batch, which is padded to its longest.
    order = sorted(range(len(distinct)), key=lambda number: lengths[number])
    pads_left = by_token and tokens.pads_left

    def fill(rows: np.ndarray) -> None:
        batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
        for batch in batches[collectives.rank() :: collectives.process_count()]:
            encoded = _encode_texts(model, tokens, [distinct[number] for number in batch], precision)
            for row, number in zip(encoded, batch, strict=True):
                start, length = starts[distinct[number]], lengths[number]
                states = row[-length:] if pads_left else row[:length]
                rows[start : start + length] = states if by_token else row

    rows = load_or_fill(name, shape, np.float32, fill, budget)
    if rows is not None and precision != "fp32":
        few = distinct[:_SAMPLE]
        own, exact = (_encode_texts(model, tokens, few, one) for one in (precision, "fp32"))
        budget.notes.append(_parity_note(precision, own, exact, f"{len(few)} texts"))
    return None if rows is None else TextFeatures(rows, starts, tokens)


@torch.no_grad()
def embed_texts(model: DualEncoder, texts: Sequence[str]) -> Tensor:
    """Return the embeddings (m, d) of texts, in order, in memory."""
    model.eval()
    rows = []
    for at in range(0, len(texts), 4 * _BATCH):
        tokens = model.text_tokenizer(list(texts[at : at + 4 * _BATCH]))
        rows.append(model.encode_text(_to_device(model, tokens)).cpu())
    return torch.cat(rows)


@torch.no_grad()
def _encode_images(model: DualEncoder | ImageModel, batch: Batch, precision: Precision) -> np.ndarray:
    assert batch.image is not None
    pixels = _to_device(model, batch.image)
    locked = isinstance(model, ImageModel) or model.first_trainable_layer("image") is None
    with computing_in(precision, _device(model)):
        if isinstance(model, ImageModel) or locked:
            rows = model.encode_image(pixels)
        else:
            rows = model.frozen_hidden_states("image", pixels)
    return rows.float().cpu().numpy()


@torch.no_grad()
def _encode_texts(
    model: DualEncoder, tokens: TokenCache, texts: Sequence[str], precision: Precision
) -> np.ndarray:
    batch = _to_device(model, tokens.batch(texts))
    locked = model.first_trainable_layer("text") is None
    with computing_in(precision, _device(model)):
        rows = model.encode_text(batch) if locked else model.frozen_hidden_states("text", batch)
    return rows.float().cpu().numpy()


def _parity_note(precision: Precision, rows: np.ndarray, exact: np.ndarray, of: str) -> str:
    distance = largest_cosine_distance(rows, exact)
    return f"computed in {precision}: the cosine distance from fp32 is at most {distance:.1e} in {of}"


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _to_device(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(_device(model)) for name, value in batch.items()}


def _description(model: DualEncoder | ImageModel, tower: Modality) -> str:
    first = None if isinstance(model, ImageModel) else model.first_trainable_layer(tower)
    if first is None or isinstance(model, ImageModel):
        return "embeddings"
    return f"hidden states below layer {first + 1} of {model.depth(tower)}"


def _key(model: DualEncoder | ImageModel, tower: Modality, precision: Precision) -> list[Any]:
    device = _device(model).type
    # Another release may change the last bit.
    versions = disk_cache.versions("torch", "transformers", "pillow", "pydicom", "numpy")
    return [tower, model.frozen_fingerprint(tower), versions, onednn.device_key(device), precision]
