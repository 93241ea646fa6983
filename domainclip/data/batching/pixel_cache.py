"""Disk cache of decoded and resized images: the output of the preprocessing, in one memory-mapped array.

Legend: n images, c bytes that the preprocessing returns for one, whatever their shapes.
"""

from __future__ import annotations

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
from domainclip.data.batching.workers import PAIRS_PER_TASK, Workers, worker_count
from domainclip.data.files.mapped_tables import look_up
from domainclip.data.images.decode import DECODING_VERSION, decode_image
from domainclip.distributed import collectives
from domainclip.errors import UnreadableImage

_BATCH = PAIRS_PER_TASK
_UNCACHED = "images are decoded in every epoch"


class CachedPixels:
    """(n, 1 + c) uint8: whether an image is readable, then all bytes of its preprocessed arrays."""

    def __init__(self, name: str, layout: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self.layout = {key: (value.shape, value.dtype) for key, value in layout.items()}
        self.rows: np.ndarray | None = None

    def __call__(self, index: int) -> dict[str, np.ndarray] | None:
        """The preprocessed arrays of an image; None for one that has to be decoded."""
        if self.rows is None:
            self.rows = disk_cache.read("pixels", self.name)
        if self.rows is None or not self.rows[index, 0]:
            return None
        arrays, start, row = {}, 1, np.asarray(self.rows[index])
        for key, (shape, dtype) in self.layout.items():
            size = int(np.prod(shape)) * dtype.itemsize
            arrays[key] = row[start : start + size].view(dtype).reshape(shape)
            start += size
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "rows": None}  # each worker maps the file itself


def with_pixel_cache(
    pairs: Pairs,
    digests: Mapping[str, str],
    *,
    limit_gb: float,
    workers: Workers,
    report: Callable[[str], None],
    build: bool = True,
) -> Pairs:
    """The same pairs with their pixels read from the cache, which is filled first if `build` and it is empty.

    The bytes equal those of decoding. Pairs whose images change from epoch to epoch, or that show several
    images at once, are returned as they are.
    """
    fixed = pairs.pixels and pairs.augmentation == "none" and not pairs.is_streamed
    if pairs.frames > 1 or not fixed or limit_gb <= 0 or pairs.views_change:
        return pairs
    layout = pairs.preprocess(Image.new("RGB", (64, 64)))
    versions = disk_cache.versions("pillow", "pydicom", "numpy")
    fingerprint = getattr(pairs.preprocess, "fingerprint", None)
    if fingerprint is None:  # without it, entries of two preprocessings cannot be distinguished
        return pairs
    name = disk_cache.key(
        DECODING_VERSION, pairs.smallest_side, versions, fingerprint(), list(look_up(digests, pairs.ids))
    )
    if collectives.max_over_processes(disk_cache.read("pixels", name) is None):
        shape = (len(pairs), 1 + sum(value.nbytes for value in layout.values()))
        if not build or not _has_room(shape, limit_gb, report):
            return pairs
        if not _create_entry(pairs, name, shape, workers, report):
            return pairs
    return pairs.with_cached_pixels(CachedPixels(name, layout))


def _has_room(shape: tuple[int, int], limit_gb: float, report: Callable[[str], None]) -> bool:
    size = shape[0] * shape[1]
    entry = f"pixel cache: {disk_cache.format_size(size)}"
    budget = disk_cache.Budget("pixels", limit_gb * 1e9)
    free = collectives.on_first_process(disk_cache.free_bytes)
    if not budget.fits(size):
        report(f"{entry}, more than train.pixel_cache_gb={limit_gb:g}: {_UNCACHED}")
    elif not disk_cache.has_room(size, free):
        report(f"{entry}, but {disk_cache.root()} has {disk_cache.format_size(free)} left: {_UNCACHED}")
    else:
        collectives.on_first_process(lambda: budget.prune(size))
        report(f"{entry} at {disk_cache.root()}")
        return True
    return False


class _EntryFailed(Exception):
    """The reason why an entry could not be written, on any process."""


def _create_entry(
    pairs: Pairs, name: str, shape: tuple[int, int], workers: Workers, report: Callable[[str], None]
) -> bool:
    """Whether the entry is written; each process fills its share of it."""
    about = {"what": f"{shape[0]} training images as the model takes them"}
    try:
        with ExitStack() as entry:

            def begin() -> str:
                array = entry.enter_context(disk_cache.writing("pixels", name, shape, np.uint8, about))
                return str(getattr(array, "filename", ""))

            file = Path(collectives.on_first_process(begin))
            with collectives.keep_alive("the pixel cache"):
                fault = _fill_share(file, pairs, workers)
            if faults := [fault for fault in collectives.gather_objects(fault) if fault]:
                raise _EntryFailed(faults[0])  # through the entry, which removes its draft
    except (OSError, _EntryFailed) as error:
        report(f"pixel cache: not written ({error}): {_UNCACHED}")
        return False
    collectives.max_over_processes(0)  # wait until the entry is in its place
    return True


def _fill_share(file: Path, pairs: Pairs, workers: Workers) -> str:
    """Fill this process's share of the entry; the fault, if any."""
    try:
        if not file.exists():
            return "not every process sees its folder"
        rows = np.load(file, mmap_mode="r+", allow_pickle=False)
        _fill(rows, pairs, workers)
        rows.flush()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _fill(rows: np.ndarray, pairs: Pairs, workers: Workers) -> None:
    share = list(range(len(pairs)))[collectives.rank() :: collectives.process_count()]
    order = [share[start : start + _BATCH] for start in range(0, len(share), _BATCH)]
    source = _PackedImages(pairs.items, pairs.preprocess, rows.shape[1], pairs.smallest_side)
    loader: DataLoader[Any] = DataLoader(
        source,
        batch_sampler=order,
        num_workers=worker_count(workers, len(share), rows.shape[1]),
        collate_fn=np.stack,
    )
    for indices, packed in zip(order, loader, strict=True):
        rows[indices] = packed


class _PackedImages(torch.utils.data.Dataset[np.ndarray]):
    """Each image as a row of the entry; zeros for an unreadable one."""

    def __init__(self, items: Any, preprocess: Preprocess, width: int, smallest_side: int | None) -> None:
        self.items = items
        self.preprocess = preprocess
        self.width = width
        self.smallest_side = smallest_side

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> np.ndarray:
        image = self.items[index]["image"]
        try:
            arrays = preprocess_image(
                decode_image(image, smallest_side=self.smallest_side), self.preprocess, image
            )
        except UnreadableImage:
            return np.zeros(self.width, np.uint8)
        return np.frombuffer(b"\1" + b"".join(value.tobytes() for value in arrays.values()), np.uint8)
