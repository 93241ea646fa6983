"""One look at every picture: it is decoded once, and all checks of pictures work from what was seen.

What was seen is kept in the cache, in blocks of pictures by their digests, so that a second check decodes
nothing. A look holds a thumbnail: like all of the cache, only its owner may read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np
from PIL import Image

from domainclip import disk_cache
from domainclip.data.dicom.reading import is_dicom
from domainclip.data.files import locations
from domainclip.data.images.decode import decode_image
from domainclip.data.images.decode import image_header as header
from domainclip.data.images.fits import is_fits
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE, hash_thumbnail
from domainclip.errors import UnreadableImage

VERSION = 1  # raise it when a look, or the decoding before it, changes
BLOCK = 1024  # pictures of an entry of the cache: appending to a corpus leaves the earlier ones as they are
# Why a picture cannot be read, or nothing, that only another file mends: it has another digest.
_PERMANENT_REASONS = (b"", b"truncated image", b"not an image", b"no pixel data", b"decompression bomb")
_MIN_FOR_PROCESSES = 2 * BLOCK  # below so many pictures, starting processes costs more than they save

INSPECTION = np.dtype(
    [
        ("reason", "S96"),  # why it cannot be read, or nothing
        ("width", "i4"),  # upright, in pixels
        ("height", "i4"),
        ("mode", "S16"),  # as the file stores it: L, RGB, CMYK, I;16 … or DICOM, FITS
        ("rotated", "?"),  # turned upright as EXIF says
        ("animated", "?"),  # of which the first frame is shown
        ("blank", "?"),
        ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
        ("hashes", "u8", (8, 2)),
        ("colour", "u1", (2,)),  # mean Cb and Cr
    ]
)


class InspectedImages(Protocol):
    """The `image` column of a corpus: a list, or what reads each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Mapping[str, Any]: ...


def inspect_images(images: InspectedImages, digests: Sequence[str], workers: int = 0) -> np.ndarray:
    """(n,) looks at pictures; `digests` are their names in the cache."""
    if not len(images):
        return np.zeros(0, INSPECTION)
    with _pool(workers if len(images) >= _MIN_FOR_PROCESSES else 0) as pool:
        blocks = [range(len(images))[i : i + BLOCK] for i in range(0, len(images), BLOCK)]
        return np.concatenate([_inspect_block(images, block, digests, pool) for block in blocks])


def cached_inspection(digests: Sequence[str]) -> bool:
    """Whether looks at all these pictures are in the cache."""
    blocks = range(0, len(digests), BLOCK)
    return all(disk_cache.read("hashes", _cache_name(digests[i : i + BLOCK])) is not None for i in blocks)


def inspect_image(image: Mapping[str, Any]) -> np.ndarray:
    """() a look at one picture."""
    seen = np.zeros((), INSPECTION)
    try:
        picture = decode_image(image)
    except UnreadableImage as error:
        seen["reason"] = error.reason.encode("ascii", "replace")[:96]
        return seen
    seen["width"], seen["height"] = picture.size
    seen["mode"], seen["rotated"], seen["animated"] = _stored_form(image)
    low, high = picture.reduce(4).convert("L").getextrema()
    seen["blank"] = float(high) - float(low) <= 2  # type: ignore[arg-type]
    grey = np.asarray(picture.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))
    seen["thumbnail"], seen["hashes"] = grey, hash_thumbnail(grey)
    mean = picture.resize((1, 1), Image.Resampling.BOX).convert("YCbCr")
    seen["colour"] = np.asarray(mean)[0, 0, 1:]
    return seen


def _inspect_block(
    images: InspectedImages, rows: range, digests: Sequence[str], pool: Executor | None
) -> np.ndarray:
    name = _cache_name(digests[rows.start : rows.stop])
    found = disk_cache.read("hashes", name)
    if found is not None and found.dtype == INSPECTION:
        return found
    given = (images[row] for row in rows)
    seen = np.stack(list(pool.map(inspect_image, given, chunksize=16) if pool else map(inspect_image, given)))
    # What could not be read today may be read tomorrow, with the same digest: a decoder is installed, a file
    # is there again, there is more memory.
    if all(reason in _PERMANENT_REASONS for reason in seen["reason"]):
        about = {"what": "looks at pictures", "pictures": len(seen), "version": VERSION}
        store_inspection(name, seen, about)
    return seen


def store_inspection(name: str, array: np.ndarray, about: dict[str, Any]) -> None:
    """Keeps an array of looks, or of what was found among them."""
    # A full disk costs the next check its time, and this one nothing.
    with suppress(OSError), disk_cache.writing("hashes", name, array.shape, array.dtype, about) as place:
        place[:] = array


def _cache_name(digests: Sequence[str]) -> str:
    return disk_cache.key("looks", VERSION, list(digests))


def _stored_form(image: Mapping[str, Any]) -> tuple[bytes, bool, bool]:
    """The mode that the file stores, whether EXIF turns it, and whether it has more than one frame."""
    path = str(image.get("path") or "")
    data = image["bytes"] if image.get("bytes") is not None else locations.read_location(path)
    said = header(data)
    if said is None:
        return b"DICOM" if is_dicom(data) else b"FITS" if is_fits(data) else b"", False, False
    return said.mode.encode()[:16], said.turned, said.frames > 1


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    if workers < 2:
        yield None
        return
    # Spawned: a forked child inherits threads and locks of libraries that do not expect it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool
