"""Images resized and written anew: pixels only, without the metadata of their files.

Legend: s the short side of a resized image, pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage

ImageFormat = Literal["png", "jpeg", "webp"]
# Pixels that the library of the format accepts.
_MAX_EDGE = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True, "quality": 50, "method": 3},
}


@dataclass(frozen=True)
class ShardChunk:
    """Some rows of a shard, the work of one task."""

    name: str  # of the shard
    rows: list[dict[str, Any]]  # of a corpus


@dataclass(frozen=True)
class Reencoder:
    """Decodes, resizes and encodes images."""

    size: int  # s; smaller images keep their size
    format: ImageFormat = "png"
    resample: int = int(Image.Resampling.BICUBIC)

    def encode_chunk(self, chunk: ShardChunk) -> list[tuple[list[bytes], list[str]]]:
        """For each item the files of its images, and the reasons why others are unreadable."""
        encoded = []
        for row in chunk.rows:
            files, reasons = [], []
            for image in (row["image"], *row["views"]):
                try:
                    files.append(self(image))
                except UnreadableImage as error:
                    reasons.append(error.reason)
            encoded.append((files, reasons))
        return encoded

    @property
    def suffix(self) -> str:
        """The suffix of the files."""
        return "jpg" if self.format == "jpeg" else self.format

    def __call__(self, image: dict[str, Any]) -> bytes:
        """The new file of an image in the `image` column.

        Raises: UnreadableImage.
        """
        return self.encode(self.resize(decode_image(image)))

    def resize(self, image: Image.Image) -> Image.Image:
        """The image with the short side s; the long side is rounded down, as image processors do."""
        short = min(image.size)
        if short <= self.size:
            return image
        width, height = (int(self.size * edge / short) for edge in image.size)
        return image.resize((width, height), self.resample)

    def encode(self, image: Image.Image) -> bytes:
        """The file of an image's pixels; profiles, comments and positions are left out.

        Raises: UnreadableImage if an edge is longer than the format allows.
        """
        if max(image.size) > _MAX_EDGE[self.format]:
            raise UnreadableImage("image", f"too long for {self.format}")
        pixels = np.asarray(image)
        if self.format == "png" and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]  # grey: a third of the bytes, and it decodes to the same image
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, self.format.upper(), **_SAVE_OPTIONS[self.format])
        return stream.getvalue()
