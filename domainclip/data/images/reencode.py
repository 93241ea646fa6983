"""Pictures made smaller and written anew: pixels only, without what else their files said.

Legend: s the wanted short side.
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
# Pixels of an edge that a format can say, as its library does.
_MAX_EDGE = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True, "quality": 50, "method": 3},
}


@dataclass(frozen=True)
class ShardChunk:
    """Some rows of a shard: what a worker takes at once."""

    name: str  # of the shard
    rows: list[dict[str, Any]]  # of a corpus


@dataclass(frozen=True)
class Reencoder:
    """How each picture is prepared."""

    size: int  # s, pixels; smaller pictures stay as they are
    format: ImageFormat = "png"
    resample: int = int(Image.Resampling.BICUBIC)

    def files(self, piece: ShardChunk) -> list[tuple[list[bytes], list[str]]]:
        """For each item the files of its pictures, and what is wrong with those that cannot be read."""
        made = []
        for row in piece.rows:
            good, bad = [], []
            for picture in (row["image"], *row["views"]):
                try:
                    good.append(self(picture))
                except UnreadableImage as error:
                    bad.append(error.reason)
            made.append((good, bad))
        return made

    @property
    def suffix(self) -> str:
        """Of the files."""
        return "jpg" if self.format == "jpeg" else self.format

    def __call__(self, image: dict[str, Any]) -> bytes:
        """The file of a picture in the `image` column.

        Raises: UnreadableImage.
        """
        return self.encoded(self.resized(decode_image(image)))

    def resized(self, picture: Image.Image) -> Image.Image:
        """The picture with the short side s; the long one cut to a whole number, as processors do."""
        short = min(picture.size)
        if short <= self.size:
            return picture
        width, height = (int(self.size * edge / short) for edge in picture.size)
        return picture.resize((width, height), self.resample)

    def encoded(self, picture: Image.Image) -> bytes:
        """Its file. A new picture of the pixels alone: profiles, comments and positions stay behind.

        Raises: UnreadableImage for one that is longer than its format can say.
        """
        if max(picture.size) > _MAX_EDGE[self.format]:
            raise UnreadableImage("picture", f"too long for {self.format}")
        pixels = np.asarray(picture)
        if self.format == "png" and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]  # grey: a third of the bytes, and the same picture again
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, self.format.upper(), **_SAVE_OPTIONS[self.format])
        return stream.getvalue()
