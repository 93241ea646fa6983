"""Pictures decoded and resized once: what the preprocessing gives for each, in one memory-mapped array.

Legend: n pictures, c bytes that the preprocessing gives for one, whatever their shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from domainclip import disk_cache
from domainclip.data.batching.pairs import Pairs, Preprocess, preprocess_image
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.data.images.decode import DECODING_VERSION, decode_image
from domainclip.distributed import collectives
from domainclip.errors import UnreadableImage

_BATCH = 32


class CachedPixels:
    """(n, 1 + c) uint8: whether a picture can be read, then all that the preprocessing gives for it."""

    def __init__(self, name: str, layout: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self.layout = {key: (value.shape, value.dtype) for key, value in layout.items()}
        self.rows: np.ndarray | None = None

    def __call__(self, index: int) -> dict[str, np.ndarray] | None:
        """What the preprocessing gives for a picture; None for one that must be looked at again."""
        if self.rows is None:
            self.rows = disk_cache.read("pixels", self.name)
        if self.rows is None or not self.rows[index, 0]:
            return None
        found, at, row = {}, 1, np.asarray(self.rows[index])
        for key, (shape, dtype) in self.layout.items():
            size = int(np.prod(shape)) * dtype.itemsize
            found[key] = row[at : at + size].view(dtype).reshape(shape)
            at += size
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "rows": None}  # a worker maps the file itself


def with_pixel_cache(
    pairs: Pairs,
    digests: Mapping[str, str],
    *,
    limit_gb: float,
    workers: int,
    say: Callable[[str], None],
    build: bool = True,
) -> Pairs:
    """The same pairs, their pixels read from the cache; made first when they are not there, if `build`.

    The same bytes as without. Not for pictures that change from epoch to epoch, nor for several at once.
    """
    fixed = pairs.pixels and pairs.augmentation == "none" and not isinstance(pairs, StreamedPairs)
    if pairs.frames > 1 or not fixed or limit_gb <= 0 or pairs.views_change:
        return pairs
    layout = pairs.preprocess(Image.new("RGB", (64, 64)))
    versions = disk_cache.versions("pillow", "pydicom", "numpy")
    fingerprint = getattr(pairs.preprocess, "fingerprint", None)
    if fingerprint is None:  # nothing tells one from another
        return pairs
    name = disk_cache.key(DECODING_VERSION, versions, fingerprint(), [digests[id] for id in pairs.ids])
    if collectives.max_over_processes(disk_cache.read("pixels", name) is None):
        shape = (len(pairs), 1 + sum(value.nbytes for value in layout.values()))
        if not build or not _has_room(shape, limit_gb, say) or not _made(pairs, name, shape, workers, say):
            return pairs
    shown = copy.copy(pairs)
    shown.cached_pixels = CachedPixels(name, layout)
    return shown


def _has_room(shape: tuple[int, int], limit_gb: float, say: Callable[[str], None]) -> bool:
    need = shape[0] * shape[1]
    said = f"pixel cache: {disk_cache.in_words(need)}"
    budget = disk_cache.Budget("pixels", limit_gb * 1e9)
    free = collectives.on_first_process(disk_cache.free_bytes)
    instead = "pictures are decoded in every epoch"
    if not budget.fits(need):
        say(f"{said}, more than train.pixel_cache_gb={limit_gb:g}: {instead}")
    elif not disk_cache.has_room(need, free):
        say(f"{said}, but {disk_cache.root()} has {disk_cache.in_words(free)} left: {instead}")
    else:
        collectives.on_first_process(lambda: budget.prune(need))
        say(f"{said} at {disk_cache.root()}")
        return True
    return False


class _NotKept(Exception):
    """Why an entry could not be made, on any process."""


def _made(pairs: Pairs, name: str, shape: tuple[int, int], workers: int, say: Callable[[str], None]) -> bool:
    """Whether the entry now stands; each process makes its share of it."""
    about = {"what": f"{shape[0]} training pictures as the model takes them"}
    try:
        with ExitStack() as entry:

            def begin() -> str:
                array = entry.enter_context(disk_cache.writing("pixels", name, shape, np.uint8, about))
                return str(getattr(array, "filename", ""))

            file = Path(collectives.on_first_process(begin))
            with collectives.keep_alive("the pixel cache"):
                problem = _filled(file, pairs, workers)
            if problems := [one for one in collectives.gather_objects(problem) if one]:
                raise _NotKept(problems[0])  # through the entry, which removes its draft
    except (OSError, _NotKept) as error:
        say(f"pixel cache: not kept ({error}): pictures are decoded in every epoch")
        return False
    collectives.max_over_processes(0)  # the entry is in its place
    return True


def _filled(file: Path, pairs: Pairs, workers: int) -> str:
    """What went wrong when this process made its share, if anything."""
    try:
        if not file.exists():
            return "not every process sees its folder"
        rows = np.load(file, mmap_mode="r+", allow_pickle=False)
        _fill(rows, pairs, workers)
        rows.flush()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _fill(rows: np.ndarray, pairs: Pairs, workers: int) -> None:
    mine = list(range(len(pairs)))[collectives.rank() :: collectives.process_count()]
    order = [mine[at : at + _BATCH] for at in range(0, len(mine), _BATCH)]
    source = _Packed(pairs.items, pairs.preprocess, rows.shape[1])
    loader: DataLoader[Any] = DataLoader(
        source, batch_sampler=order, num_workers=workers, collate_fn=np.stack
    )
    for places, packed in zip(order, loader, strict=True):
        rows[places] = packed


class _Packed(torch.utils.data.Dataset[np.ndarray]):
    """Each picture as a row; zeros for one that cannot be read."""

    def __init__(self, items: Any, preprocess: Preprocess, width: int) -> None:
        self.items = items
        self.preprocess = preprocess
        self.width = width

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> np.ndarray:
        image = self.items[index]["image"]
        try:
            found = preprocess_image(decode_image(image), self.preprocess, image)
        except UnreadableImage:
            return np.zeros(self.width, np.uint8)
        return np.frombuffer(b"\1" + b"".join(value.tobytes() for value in found.values()), np.uint8)
