"""Textured pictures, and copies of them as they turn up in corpora: re-encoded, resized, cut, mirrored."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter


def film(seed: int, side: int = 160) -> Image.Image:
    """Two dark lungs on a grey chest with texture of its own: alike to a hash, told apart by what is fine."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    chest = 150.0 - 40 * (x**2 + y**2)
    for centre in (-0.45, 0.45):
        chest -= 90 * np.exp(-(((x - centre) / 0.3) ** 2 + (y / 0.6) ** 2))
    for blur, height in ((2, 60), (5, 60)):
        chest += height * gaussian_filter(draw.normal(size=(side, side)), blur)
    return Image.fromarray(np.clip(chest, 0, 255).astype(np.uint8)).convert("RGB")


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def cut(picture: Image.Image, share: float) -> Image.Image:
    """Without a share of the width and height on each side."""
    dx, dy = round(picture.width * share), round(picture.height * share)
    return picture.crop((dx, dy, picture.width - dx, picture.height - dy))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg_30": lambda picture: jpeg(picture, 30),
    "jpeg_95": lambda picture: jpeg(picture, 95),
    "half": lambda picture: picture.resize(
        (picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC
    ),
    "double": lambda picture: picture.resize(
        (picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC
    ),
    "cut": lambda picture: cut(picture, 0.02),
    "mirrored": ImageOps.mirror,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "cut_mirrored_jpeg": lambda picture: jpeg(ImageOps.mirror(cut(picture, 0.02)), 60),
}
