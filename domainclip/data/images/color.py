"""Conversion of colours to sRGB by an image's ICC profile [ICC.1; IEC 61966-2-1].

Bases were trained on images of the web, nearly all of them sRGB. Without the conversion, a scan in
Adobe RGB or ProPhoto is too pale, and CMYK converted by the naive formula is too saturated.
"""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

# By Pillow's mode. Grey profiles are ignored: they would change brightness only, and an X-ray has no colour.
_PROFILE_SPACES = {"RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in sRGB; unchanged without a profile for its mode, or with a profile that cannot be used."""
    if not profile or image.mode not in _PROFILE_SPACES:
        return image
    try:
        transform = _srgb_transform(profile, image.mode)
        return image if transform is None else ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile does not make the image unreadable


@lru_cache(maxsize=8)  # a corpus has few profiles, and a table for CMYK takes 30 ms to make
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB in 8 bits; None if the image needs no conversion."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    is_srgb = "sRGB" in (source.profile.profile_description or "")
    if source.profile.xcolor_space != _PROFILE_SPACES[mode] or is_srgb:
        return None
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
