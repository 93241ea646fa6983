"""TIFF samples that Pillow refuses or misreads: signed, 32 and 64 bits, floats, WhiteIsZero [TIFF 6.0].

Legend: s samples of a pixel, the extra ones (alpha) last.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.Image import DecompressionBombError

from domainclip.data.images.bit_depth import BitDepthSettings, colour_levels, grey_levels
from domainclip.errors import UnreadableImage

_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NONE, _DEFLATE = (1,), (8, 32946)  # compression
_KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat: unsigned, signed, float
_UNREAD = "TIFF layout that is not read: convert it to PNG, or to a TIFF without compression"
_PREVIEW_OR_MASK = 0b101  # of NewSubfileType, tag 254
_TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
    34675,
)
# Bytes of samples that are always allocated, and bytes that are allowed for each byte of a file.
_MIN_UNZIPPED, _MAX_COMPRESSION = 2**26, 100
_MAX_PAGES = 64  # in which a page of full size is looked for


class TooManyPixels(ValueError):
    """An image that is larger than is allowed."""


@dataclass(frozen=True)
class TiffPage:
    """The first page of full size: its tags, by number."""

    tags: dict[int, Any]
    number: int  # from 0
    byte_order: Literal["<", ">"]  # of numpy: "<" or ">"
    has_more: bool  # pages behind it

    def values(self, tag: int, default: int) -> tuple[Any, ...]:
        """The values of a tag."""
        value = self.tags.get(tag, default)
        return value if isinstance(value, tuple) else (value,)

    def value(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return int(self.values(tag, default)[0])

    @property
    def white_is_zero(self) -> bool:
        """Whether the lowest value is white."""
        return self.value(262, 1) == 0

    @property
    def is_grey(self) -> bool:
        """Whether the page is grey, of either photometric interpretation."""
        return self.value(262, 1) in (0, 1)

    @property
    def sample_type(self) -> str:
        """The type of a sample: "uint16", "float64"."""
        name = {1: "uint", 2: "int", 3: "float"}.get(self.value(339, 1), "bits")
        return f"{name}{self.value(258, 1)}"

    @property
    def needs_own_decoder(self) -> bool:
        """Whether Pillow may misread the samples, and this module reads them."""
        bits, formats = self.values(258, 1), self.values(339, 1)
        unusual = max(bits) > 8 or set(formats) != {1} or (self.white_is_zero and self.value(277, 1) > 1)
        readable = len(set(bits)) == len(set(formats)) == 1 and bits[0] in (8, 16, 32, 64)
        compression = self.value(259, 1)
        by_rows = compression in _NONE or (compression in _DEFLATE and self.value(317, 1) in (1, 2))
        return unusual and readable and by_rows and formats[0] in _KINDS and self.value(262, 1) in (0, 1, 2)


def read_page(data: bytes, name: str) -> TiffPage | None:
    """The first page of full size; None for a file that is no TIFF.

    Raises: UnreadableImage for the raw file of a camera, whose pages are previews; for a page without pixels.
    """
    if data[:4] not in _MAGICS:
        return None
    stream = io.BytesIO(data)
    header_size = 8 if data[2:3] in b"*" or data[3:4] in b"*" else 16
    directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(header_size))
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    pages: list[TiffPage] = []
    while directory.next and len(pages) < _MAX_PAGES:
        stream.seek(directory.next)
        directory.load(stream)
        tags = {tag: directory[tag] for tag in _TAGS if tag in directory}
        pages.append(TiffPage(tags, len(pages), order, has_more=bool(directory.next)))
        if not pages[-1].value(254, 0) & _PREVIEW_OR_MASK:
            break
    if all(page.value(254, 0) & _PREVIEW_OR_MASK for page in pages):
        if any(330 in page.tags for page in pages):
            raise UnreadableImage(name, "camera raw file, which is not read: convert it to PNG or JPEG")
        return pages[0] if pages else None
    if not (pages[-1].value(256, 0) and pages[-1].value(257, 0)):
        raise UnreadableImage(name, "no pixels")
    return pages[-1]


def decode_samples(page: TiffPage, data: bytes, max_pixels: int, settings: BitDepthSettings) -> Image.Image:
    """The page as an 8-bit image, with its profile and orientation still to be applied.

    Raises: ValueError for a damaged file, or one of more than `max_pixels`.
    """
    samples = _samples(page, data, max_pixels)
    colours = samples.shape[2] - len(page.values(338, 0)) if 338 in page.tags else samples.shape[2]
    has_alpha = page.value(338, 0) in (1, 2) and samples.shape[2] > colours
    if page.is_grey:
        grey = grey_levels(samples[..., 0], settings, inverted=page.white_is_zero)
        levels = np.repeat(grey[..., None], 3, axis=2)
    else:
        if colours < 3:
            raise ValueError("fewer than three colours")
        levels = colour_levels(samples[..., :3])
    if has_alpha:
        alpha = colour_levels(samples[..., colours : colours + 1])
        if page.value(338, 0) == 1:  # the colours are multiplied by alpha already
            levels = np.minimum(255, levels.astype(np.uint32) * 255 // np.maximum(1, alpha)).astype(np.uint8)
        levels = np.concatenate([levels, alpha], axis=2)
    image = Image.fromarray(np.ascontiguousarray(levels))
    if 34675 in page.tags:
        image.info["icc_profile"] = page.tags[34675]
    image.getexif()[0x0112] = page.value(274, 1)
    return image


def _samples(page: TiffPage, data: bytes, max_pixels: int) -> np.ndarray:
    """(rows, columns, s) in the machine's byte order."""
    width, height, count = page.value(256, 0), page.value(257, 0), page.value(277, 1)
    if width * height > max_pixels:
        raise TooManyPixels
    planar = page.value(284, 1) == 2
    tiled = 322 in page.tags
    block_width = page.value(322, width) if tiled else width
    block_height = page.value(323, height) if tiled else min(page.value(278, height), height)
    if min(width, height, count, block_width, block_height) < 1 or count > 64:
        raise ValueError("no pixels")
    if block_width * block_height > 4 * max_pixels:
        raise ValueError("a tile larger than any image")
    depth = 1 if planar else count
    offsets, sizes = page.values(324 if tiled else 273, 0), page.values(325 if tiled else 279, 0)
    kind = np.dtype(f"{_KINDS[page.value(339, 1)]}{page.value(258, 8) // 8}").newbyteorder(page.byte_order)
    # Files cannot be much smaller than their pixels: memory is not allocated for what is not there.
    if page.value(259, 1) in _NONE and width * height * count * kind.itemsize > len(data):
        raise ValueError("truncated")
    if width * height * count * kind.itemsize > max(_MIN_UNZIPPED, _MAX_COMPRESSION * len(data)):
        raise DecompressionBombError("more samples than the file can hold")
    samples = np.zeros((height, width, count), kind.newbyteorder("="))
    across, down = -(-width // block_width), -(-height // block_height)
    blocks = iter(zip(offsets, sizes, strict=True))
    for plane in range(count if planar else 1):
        for top in range(0, down * block_height, block_height):
            for left in range(0, across * block_width, block_width):
                rows = block_height if tiled else min(block_height, height - top)
                offset, size = next(blocks, (0, 0))
                block = _block(page, data[offset : offset + size], (rows, block_width, depth), kind)
                target = samples[top : top + rows, left : left + block_width]
                target = target[..., plane : plane + 1] if planar else target
                target[:] = block[: target.shape[0], : target.shape[1]]
    return samples


def _block(page: TiffPage, data: bytes, shape: tuple[int, int, int], kind: np.dtype[Any]) -> np.ndarray:
    """A strip or a tile of samples."""
    length = shape[0] * shape[1] * shape[2] * kind.itemsize
    if page.value(259, 1) in _DEFLATE:
        data = zlib.decompressobj().decompress(data, length)
    if len(data) < length:
        raise ValueError("truncated")
    block = np.frombuffer(data, kind, shape[0] * shape[1] * shape[2]).reshape(shape)
    block = block.astype(kind.newbyteorder("="))
    # Predictor 2: each sample is the difference from the one at its left.
    return np.cumsum(block, axis=1, dtype=block.dtype) if page.value(317, 1) == 2 else block


def unread_reason(data: bytes) -> str | None:
    """The reason for a TIFF that neither Pillow nor this module reads; None for any other file."""
    return _UNREAD if data[:4] in _MAGICS else None
