"""Textured images, and copies of them as they occur in corpora: re-encoded, resized, cropped, mirrored."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter


def film(seed: int, side: int = 160) -> Image.Image:
    """Two dark lungs on a grey chest with a texture by seed: similar to a hash, different in fine structure."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    chest = 150.0 - 40 * (x**2 + y**2)
    for centre in (-0.45, 0.45):
        chest -= 90 * np.exp(-(((x - centre) / 0.3) ** 2 + (y / 0.6) ** 2))
    for blur, height in ((2, 60), (5, 60)):
        chest += height * gaussian_filter(draw.normal(size=(side, side)), blur)
    return Image.fromarray(np.clip(chest, 0, 255).astype(np.uint8)).convert("RGB")


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after a JPEG compression."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def cut(image: Image.Image, share: float) -> Image.Image:
    """The image without a share of its width and height on each side."""
    dx, dy = round(image.width * share), round(image.height * share)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg_30": lambda image: jpeg(image, 30),
    "jpeg_95": lambda image: jpeg(image, 95),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "double": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "cut": lambda image: cut(image, 0.02),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "cut_mirrored_jpeg": lambda image: jpeg(ImageOps.mirror(cut(image, 0.02)), 60),
}
