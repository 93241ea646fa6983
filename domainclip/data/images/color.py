"""Colours as a screen shows them: what an ICC profile says, converted to sRGB [ICC.1; IEC 61966-2-1].

Bases were trained on pictures of the web, nearly all of them sRGB. A scan in Adobe RGB or ProPhoto that is
read as if it were sRGB is pale, and CMYK that is read by the naive formula is garish.
"""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

# Grey profiles are left alone: they change the brightness only, and of an X-ray that is no colour.
_PROFILE_SPACES = {"RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB; as it is without a profile for its colours, or with one that cannot be used."""
    if not profile or image.mode not in _PROFILE_SPACES:
        return image
    try:
        transform = _srgb_transform(profile, image.mode)
        return image if transform is None else ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no broken picture


@lru_cache(maxsize=8)  # the profiles of one corpus are few, and a table for CMYK takes 30 ms to make
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB in 8 bits; None where there is nothing to do."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if opened.profile.xcolor_space != _PROFILE_SPACES[mode] or "sRGB" in (
        opened.profile.profile_description or ""
    ):
        return None
    return ImageCms.buildTransform(
        opened,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
