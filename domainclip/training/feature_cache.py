"""What never changes is computed once: by all processes together, on disk, and found again by the next run.

For a tower that is locked whole these are its embeddings; for one whose last layers learn, the hidden states
that reach the first of them. They are made of pictures and captions, so they stay in the user's own cache.

Legend: n items, m texts, t tokens or patches, w width of a tower, d width of the embeddings.
"""

from __future__ import annotations

import errno
import importlib.metadata
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainclip import disk_cache
from domainclip.data.batching.pairs import Batch, Pairs, collate
from domainclip.data.images.decode import DECODING_VERSION
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives
from domainclip.models import onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_model import ImageModel
from domainclip.models.text_tokenizer import TokenCache

_MADE_BY = ("torch", "transformers", "pillow", "pydicom", "numpy")  # another may change the last bit
_BATCH = 64  # items that go through a tower together
_FREE = 2**30  # bytes that are left on the disk


@dataclass
class CacheBudget:
    """How much may be kept, and what was said about it."""

    limit: float  # bytes of all kept features of this user
    used: int = 0  # of them by this run
    notes: list[str] = field(default_factory=list)
    last_reserved: tuple[str, int] = ("", 0)  # what was given room last, and its bytes

    def reserve(self, what: str, shape: Sequence[int], name: str) -> bool:
        """Whether an entry of so many fp32 numbers fits or is there; takes its room, and says either way."""
        size = 4 * int(np.prod(shape))
        said = f"{what}, {size / 1e9:.2f} GB"
        free = collectives.on_first_process(_left)
        if self.used + size > self.limit:
            self.notes.append(f"not kept: {said}: more than train.keep_features_gb allows")
        elif missing_rows(name) and size + _FREE > free:
            self.notes.append(
                f"not kept: {said}: the disk of {disk_cache.root()} has {free / 1e9:.2f} GB left"
            )
        else:
            self.used += size
            self.last_reserved = (said, size)
            self.notes.append(
                f"{'kept' if missing_rows(name) else 'found again'}: {said} in {disk_cache.root()}"
            )
            return True
        return False

    def release(self, why: str) -> None:
        """Takes the room back that was given last: what it was for could not be kept."""
        said, size = self.last_reserved
        self.used -= size
        self.notes[-1] = f"not kept: {said}: {why}"


def missing_rows(name: str) -> bool:
    """Whether an entry has to be made; all processes agree."""
    return bool(collectives.max_over_processes(disk_cache.read("features", name) is None))


@dataclass(frozen=True)
class ImageFeatures:
    """What is kept of the training images."""

    rows: np.ndarray  # (n, d) embeddings, or (n, t, w) hidden states, fp32, memory-mapped
    replacements: dict[int, int]  # which row stands in for an unreadable one
    unusable: list[UnusableItem]  # those that could not be read


@dataclass(frozen=True)
class TextFeatures:
    """What is kept of texts: (m, d) embeddings, or hidden states of all their tokens one after the other."""

    rows: np.ndarray  # fp32, memory-mapped
    starts: dict[str, int]  # by text: its first row
    tokens: TokenCache

    def embeddings(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), d), under a tower that is locked whole."""
        return torch.from_numpy(self.rows[[self.starts[text] for text in texts]])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each has."""
        return self.tokens.lengths(texts)

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the tokenizer gives, and (m, t, w) `hidden`, for a tower that begins at a layer."""
        batch = self.tokens.batch(texts)
        hidden = np.zeros((*batch["input_ids"].shape, self.rows.shape[1]), np.float32)
        from_left = self.tokens.model.tokenizer.padding_side == "left"
        for row, text, length in zip(hidden, texts, self.lengths(texts), strict=True):
            place = slice(len(row) - length, None) if from_left else slice(length)
            row[place] = self.rows[self.starts[text] : self.starts[text] + length]
        return {**batch, "hidden": torch.from_numpy(hidden)}


@dataclass(frozen=True)
class TeacherFeatures:
    """What another model, which learns nothing, says of the training pairs."""

    image: np.ndarray  # (n, t)
    text: TextFeatures
    scale: float


def cache_image_features(
    model: DualEncoder | ImageModel, pairs: Pairs, digests: Sequence[str], room: CacheBudget
) -> ImageFeatures | None:
    """What a tower, or its locked layers, say of every training image; None when there is no room.

    `digests` tell the pictures, in order; each row is what `pairs` show for it in the first epoch.
    """
    model.eval()
    one = _encoded(model, collate([pairs[0, 0]]))
    shape = (len(pairs), *one.shape[1:])
    key: list[Any] = [
        *_key(model, "image"),
        DECODING_VERSION,
        model.image_preprocessor.fingerprint(),
        list(digests),
    ]
    if not room.reserve(f"{_what(model, 'image')} of {len(pairs):,} pictures", shape, disk_cache.key(*key)):
        return None
    shown: dict[int, int] = {}

    def fill(rows: np.ndarray) -> None:
        mine = list(range(len(pairs)))[collectives.rank() :: collectives.process_count()]
        order = [[(0, i) for i in mine[at : at + _BATCH]] for at in range(0, len(mine), _BATCH)]
        for batch in DataLoader(pairs, batch_sampler=order, collate_fn=collate):
            asked = batch.asked.tolist()
            rows[asked] = _encoded(model, batch)
            shown.update(zip(asked, batch.index.tolist(), strict=True))

    rows = _stored(disk_cache.key(*key), shape, np.float32, fill, room)
    if rows is None:
        return None

    def places(index: np.ndarray) -> None:
        """Which row each one shows; looked at again only where the rows above were there already."""
        for share in collectives.gather_objects(shown):
            shown.update(share)
        index[:] = [shown[i] if i in shown else pairs[0, i].index for i in range(len(pairs))]

    index = _stored(disk_cache.key(*key, "index"), (len(pairs),), np.int64, places, room, alone=True)
    if index is None:
        return None
    replaced = {int(asked): int(index[asked]) for asked in np.flatnonzero(index != np.arange(len(pairs)))}
    bad = {item.place: item for asked in replaced for item in pairs[0, asked].bad}
    return ImageFeatures(rows, replaced, list(bad.values()))


def cache_text_features(
    model: DualEncoder, tokens: TokenCache, said: Sequence[str], room: CacheBudget
) -> TextFeatures | None:
    """What a tower, or its locked layers, say of texts; None when there is no room."""
    model.eval()
    distinct = sorted(set(said))
    tokens.remember(distinct)
    hidden = model.first_trainable_layer("text") is not None
    lengths = tokens.lengths(distinct) if hidden else [1] * len(distinct)
    starts = dict(zip(distinct, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    width = _encoded_texts(model, tokens, distinct[:1]).shape[-1]
    shape = (sum(lengths), width)
    name = disk_cache.key(*_key(model, "text"), model.wording, distinct)
    if not room.reserve(f"{_what(model, 'text')} of {len(distinct):,} texts", shape, name):
        return None
    # Texts of like length stand together, for a batch is padded to its longest.
    order = sorted(range(len(distinct)), key=lambda i: lengths[i])

    def fill(rows: np.ndarray) -> None:
        batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
        for batch in batches[collectives.rank() :: collectives.process_count()]:
            some = [distinct[i] for i in batch]
            found = _encoded_texts(model, tokens, some)
            from_left = hidden and model.tokenizer.padding_side == "left"
            for row, i in zip(found, batch, strict=True):
                own = row[-lengths[i] :] if from_left else row[: lengths[i]]
                rows[starts[distinct[i]] : starts[distinct[i]] + lengths[i]] = own if hidden else row

    rows = _stored(name, shape, np.float32, fill, room)
    return None if rows is None else TextFeatures(rows, starts, tokens)


@torch.no_grad()
def embed_texts(model: DualEncoder, said: Sequence[str]) -> Tensor:
    """(m, d) embeddings of texts, in order, in memory."""
    model.eval()
    rows = []
    for at in range(0, len(said), 4 * _BATCH):
        tokens = model.tokenise(list(said[at : at + 4 * _BATCH]))
        rows.append(model.encode_text(_brought(model, tokens)).cpu())
    return torch.cat(rows)


@torch.no_grad()
def _encoded(model: DualEncoder | ImageModel, batch: Batch) -> np.ndarray:
    assert batch.image is not None
    pixels = _brought(model, batch.image)
    locked = isinstance(model, ImageModel) or model.first_trainable_layer("image") is None
    rows = model.encode_image(pixels) if locked else model.frozen_hidden_states("image", pixels)  # type: ignore[operator]
    return rows.float().cpu().numpy()


@torch.no_grad()
def _encoded_texts(model: DualEncoder, tokens: TokenCache, said: Sequence[str]) -> np.ndarray:
    ids = _brought(model, tokens.batch(said))
    locked = model.first_trainable_layer("text") is None
    rows = model.encode_text(ids) if locked else model.frozen_hidden_states("text", ids)
    return rows.float().cpu().numpy()


def _brought(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def _what(model: DualEncoder | ImageModel, part: Any) -> str:
    if isinstance(model, ImageModel):
        return "embeddings"
    first = model.first_trainable_layer(part)
    if first is None:
        return "embeddings"
    return f"hidden states below layer {first + 1} of {model.depth(part)}"


def _key(model: DualEncoder | ImageModel, part: Any) -> list[Any]:
    device = next(model.parameters()).device.type
    versions = [importlib.metadata.version(name) for name in _MADE_BY]
    return [part, model.frozen_fingerprint(part), versions, onednn.device_key(device)]


def _left() -> int:
    """Bytes that are left on the disk of the cache; none where nobody may look."""
    try:
        here = next(path for path in (disk_cache.root(), *disk_cache.root().parents) if path.exists())
        return shutil.disk_usage(here).free
    except OSError:
        return 0


def _stored(
    name: str,
    shape: Sequence[int],
    dtype: Any,
    fill: Callable[[np.ndarray], None],
    room: CacheBudget,
    alone: bool = False,
) -> np.ndarray | None:
    """The array of this name; `fill` makes it when it is not there yet, each process its share of the rows.

    None when it cannot be kept, which the room says: whoever asks takes the plain way. `alone`: what all of
    them find is the same, and the first writes it.
    """
    problem = ""
    if missing_rows(name):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            collectives.on_first_process(lambda: disk_cache.prune(int(room.limit) - size, "features"))
            _made(name, shape, dtype, fill, alone)
        except OSError as error:
            problem = error.strerror or type(error).__name__
    problems = collectives.gather_objects(problem)  # the entry is in its place, or nobody believes in it
    found = disk_cache.read("features", name)
    if any(collectives.gather_objects(found is None)):
        problems.append("another run has removed it")
    if said := next(filter(None, problems), ""):
        room.release(f"{disk_cache.root()}: {said}; DOMAINCLIP_CACHE names another folder")
        return None
    return found


def _made(
    name: str, shape: Sequence[int], dtype: Any, fill: Callable[[np.ndarray], None], alone: bool
) -> None:
    """Makes an entry together.

    Raises: OSError, on one process or all; through the entry, which then does not come to be.
    """
    with ExitStack() as open_entry:
        entry = disk_cache.writing("features", name, tuple(shape), dtype, {"shape": list(shape)})
        file = collectives.on_first_process(
            lambda: str(getattr(open_entry.enter_context(entry), "filename", ""))
        )
        if not min(collectives.gather_objects(Path(file).exists())):
            raise OSError(errno.EIO, "not every process sees its folder")
        array, problem = np.load(file, mmap_mode="r+", allow_pickle=False), ""
        with collectives.keep_alive("what all processes keep"):
            try:
                fill(array if not alone or collectives.rank() == 0 else np.empty(shape, dtype))
                array.flush()
            except OSError as error:
                problem = error.strerror or type(error).__name__
        if said := next(filter(None, collectives.gather_objects(problem)), ""):
            raise OSError(errno.EIO, said)
