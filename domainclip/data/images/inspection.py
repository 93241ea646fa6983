"""Inspection of every image: it is decoded once, and all checks of images use the recorded facts.

Inspections are cached in blocks of images, by their digests, so that a second check decodes nothing. They
contain thumbnails: like the rest of the cache, only its owner can read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np
from PIL import Image

from domainclip import disk_cache
from domainclip.data.dicom import isolated_gdcm
from domainclip.data.dicom.reading import is_dicom
from domainclip.data.files import locations
from domainclip.data.images.decode import MAX_PIXELS, decode_image, image_header
from domainclip.data.images.fits_hdus import count_images
from domainclip.data.images.fits_settings import is_fits
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE, hash_thumbnail
from domainclip.errors import UnreadableImage

VERSION = 3  # raise it when an inspection, or the decoding before it, changes
BLOCK = 1024  # images of a cache entry: appending to a corpus leaves earlier entries valid
# Reasons that only another file, with another digest, can remove; b"" is a readable image.
_PERMANENT_REASONS = (
    *(b"", b"truncated image", b"not an image", b"no pixel data", b"no pixels", b"decompression bomb"),
    *(b"no image in this FITS file", b"no finite value in this FITS image"),
)
_MIN_FOR_PROCESSES = 2 * BLOCK  # with fewer images, starting processes costs more than it saves

INSPECTION = np.dtype(
    [
        ("reason", "S96"),  # why it is unreadable, or empty
        ("width", "i4"),  # pixels, upright
        ("height", "i4"),
        ("mode", "S16"),  # as stored in the file: L, RGB, CMYK, I;16 … or DICOM, FITS
        ("rotated", "?"),  # to be upright, by its EXIF orientation
        ("animated", "?"),  # only the first frame is decoded
        ("blank", "?"),
        ("messages", "?", (len(isolated_gdcm.MESSAGE_KINDS),)),  # kinds of lines that the decoder printed
        ("planes", "u2"),  # images in a FITS file, of which one is shown; 0 for other files
        ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),  # grey
        ("hashes", "u8", (8, 2)),
        ("colour", "u1", (2,)),  # mean Cb and Cr
    ]
)


class InspectedImages(Protocol):
    """Values of the `image` column of a corpus: a list, or an object that reads each one on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def inspect_images(images: InspectedImages, digests: Sequence[str], workers: int = 0) -> np.ndarray:
    """(n,) INSPECTION of n images; `digests` identify them in the cache."""
    if not len(images):
        return np.zeros(0, INSPECTION)
    with _process_pool(workers if len(images) >= _MIN_FOR_PROCESSES else 0) as pool:
        blocks = [range(len(images))[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
        return np.concatenate([_inspect_block(images, block, digests, pool) for block in blocks])


def is_inspection_cached(digests: Iterable[str]) -> bool:
    """Whether the inspections of all these images are in the cache; stops at the first block that is not."""
    remaining = iter(digests)
    blocks = iter(lambda: list(islice(remaining, BLOCK)), [])
    return all(disk_cache.read("hashes", _cache_key(block)) is not None for block in blocks)


def inspect_image(image: Mapping[str, Any]) -> np.ndarray:
    """() INSPECTION of one image."""
    inspection = np.zeros((), INSPECTION)
    printed = isolated_gdcm.printed_bytes()
    try:
        decoded = decode_image(image)
    except UnreadableImage as error:
        inspection["reason"] = error.reason.encode("ascii", "replace")[:96]
    inspection["messages"] = isolated_gdcm.printed_kinds(printed)
    if inspection["reason"]:
        return inspection
    inspection["width"], inspection["height"] = decoded.size
    (
        inspection["mode"],
        inspection["rotated"],
        inspection["animated"],
        inspection["planes"],
    ) = _stored_form(image)
    low, high = decoded.reduce(4).convert("L").getextrema()
    inspection["blank"] = float(high) - float(low) <= 2  # type: ignore[arg-type]
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    thumbnail = np.asarray(decoded.convert("L").resize(side, Image.Resampling.BOX))
    inspection["thumbnail"], inspection["hashes"] = thumbnail, hash_thumbnail(thumbnail)
    mean = decoded.resize((1, 1), Image.Resampling.BOX).convert("YCbCr")
    inspection["colour"] = np.asarray(mean)[0, 0, 1:]
    return inspection


def _inspect_block(
    images: InspectedImages, rows: range, digests: Sequence[str], pool: Executor | None
) -> np.ndarray:
    key = _cache_key(digests[rows.start : rows.stop])
    cached = disk_cache.read("hashes", key)
    if cached is not None and cached.dtype == INSPECTION:
        return cached
    block = (images[row] for row in rows)
    inspections = np.stack(
        list(pool.map(inspect_image, block, chunksize=16) if pool else map(inspect_image, block))
    )
    # Other reasons may disappear with the same digest: a decoder is installed, a file is restored, memory is
    # free again.
    if all(reason in _PERMANENT_REASONS for reason in inspections["reason"]):
        about = {"what": "inspections of images", "images": len(inspections), "version": VERSION}
        store_array(key, inspections, about)
    return inspections


def store_array(key: str, array: np.ndarray, about: dict[str, Any]) -> None:
    """Write inspections, or an array computed from them, to the cache."""
    # A full disk costs the next check its time, and this one nothing.
    with suppress(OSError), disk_cache.writing("hashes", key, array.shape, array.dtype, about) as entry:
        entry[:] = array


def _cache_key(digests: Sequence[str]) -> str:
    return disk_cache.key("looks", VERSION, list(digests))


def _stored_form(image: Mapping[str, Any]) -> tuple[bytes, bool, bool, int]:
    """The stored mode, whether EXIF rotates it, whether it has several frames; images of FITS."""
    path = str(image.get("path") or "")
    data = image["bytes"] if image.get("bytes") is not None else locations.read_location(path)
    if is_fits(data):
        return b"FITS", False, False, min(count_images(data, path, MAX_PIXELS), 2**16 - 1)
    header = image_header(data)
    if header is None:
        return b"DICOM" if is_dicom(data) else b"", False, False, 0
    return header.mode.encode()[:16], header.rotated, header.frames > 1, 0


@contextmanager
def _process_pool(workers: int) -> Iterator[Executor | None]:
    """A pool of processes; None for fewer than two."""
    if workers < 2:
        yield None
        return
    # Spawned: a forked child inherits threads and locks of libraries that do not expect it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool
