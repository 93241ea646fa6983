"""Decoding of images of any format to 8-bit RGB.

Decoders raise arbitrary exceptions on broken files, so all of them are caught here, once.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from domainclip.data.dicom import reading, rendering
from domainclip.data.files import locations
from domainclip.data.images import color, fits, fits_settings
from domainclip.errors import UnreadableImage

# Formats whose decoders run no other program, as those of EPS and PDF do. FITS is decoded by `fits`.
_SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "MPO", "PPM", "ICO", "AVIF")
Image.init()
FORMATS = tuple(name for name in _SAFE_FORMATS if name in Image.OPEN)  # Pillow may lack some
# Pillow's own limit: a larger image is a mistake or an attack, and takes 270 MB of memory.
MAX_PIXELS = 89_478_485
_STRIP_PIXELS = 2**20  # pixels whose grey levels are computed at once
# Transparent pixels become white, as web pages show them: captions were written for that appearance.
BACKGROUND = (255, 255, 255)
# Part of the cache keys of everything computed from pixels: raise it when a file decodes to other pixels.
DECODING_VERSION = 2


def decode_image(image: Mapping[str, Any], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image of the `image` column, {path, bytes}, upright, as RGB.

    Raises: UnreadableImage, a DataError, naming the file and the reason.
    """
    name = str(image.get("path") or "image")
    file, fragment = locations.split_location(name)
    try:
        data = image["bytes"] if image.get("bytes") is not None else locations.read_location(name)
    except FileNotFoundError:
        raise UnreadableImage(name, "missing file") from None
    except OSError as error:
        raise UnreadableImage(name, f"unreadable file ({error.strerror})") from None
    if not data:
        raise UnreadableImage(name, "empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if reading.is_dicom(data):
                frame, window = fragment.get("frame", 0), fragment.get("window", 0)
                decoded = rendering.render_image(data, name, max_pixels, frame, window)
            elif fits_settings.is_fits(data):
                decoded = fits.render_fits(data, file, fragment, max_pixels)
            else:
                decoded = _decode_with_pillow(data, name, max_pixels)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, _reason(error, data)) from None
    if not all(decoded.size):  # nothing can be resized, shown or encoded
        raise UnreadableImage(name, "no pixels")
    return decoded


@dataclass(frozen=True)
class ImageHeader:
    """Facts from the header of an image file, for statistics of a corpus."""

    kind: str  # JPEG, PNG …
    mode: str  # L, RGB, CMYK, I;16 …
    width: int
    height: int
    frames: int  # only the first is decoded
    rotated: bool  # by its EXIF orientation
    has_icc_profile: bool


def image_header(data: bytes) -> ImageHeader | None:
    """The header of an image file; None for DICOM, FITS, and files that are not images."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            warnings.simplefilter("ignore")
            return ImageHeader(
                kind=str(opened.format),
                mode=opened.mode,
                width=opened.width,
                height=opened.height,
                frames=getattr(opened, "n_frames", 1),
                rotated=opened.getexif().get(0x0112, 1) not in (0, 1),
                has_icc_profile="icc_profile" in opened.info,
            )
    except Exception:
        return None


def _decode_with_pillow(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        # Only the header was read so far: refuse before memory is allocated.
        if opened.width * opened.height > max_pixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        opened.seek(0)  # the first frame of an animation
        opened.load()
        return upright_rgb(opened)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB in sRGB, with its EXIF orientation applied."""
    return _to_rgb(_apply_orientation(image))


def _apply_orientation(image: Image.Image) -> Image.Image:
    """The image rotated by its EXIF orientation; unchanged if the EXIF block is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        foreground = color.to_srgb(rgba.convert("RGB"), profile).convert("RGBA")
        foreground.putalpha(rgba.getchannel("A"))
        background = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
        return Image.alpha_composite(background, foreground).convert("RGB")
    # A profile applies to the colours of a palette as well.
    unpacked = image.convert("RGB") if image.mode == "P" else image
    return color.to_srgb(unpacked, profile).convert("RGB")


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """(rows, columns) uint8 from grey levels of any depth; Pillow would turn all levels above 255 white.

    The depth is 8, 12 or 16 bits, the first that holds the brightest pixel: images of 12-bit detectors are
    stored in 16 bits. Floats, negative and 32-bit values have no such depth: their range is stretched.
    """
    low, high, integers = np.inf, -np.inf, True
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            integers = integers and bool((finite == np.rint(finite)).all())
    grey = np.zeros((image.height, image.width), np.uint8)
    depth = next((bits for bits in (8, 12, 16) if high < 2**bits), None)
    if depth is not None and 0 <= low <= high and integers:
        low, high = 0.0, float(2**depth - 1)
    if high <= low:  # a single level, or no finite value
        return grey
    for top, values in _strips(image):
        # NaN was not measured: it becomes black, and does not affect the range.
        shares = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
        grey[top : top + len(values)] = np.rint(shares * 255).astype(np.uint8)
    return grey


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of a grey image, float64, with their first row: all at once would take 8 bytes a pixel."""
    height = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(image.height, top + height)))
        yield top, np.asarray(strip).astype(np.float64)


def _reason(error: Exception, data: bytes) -> str:
    """A few words that quote no value of the file, so that equal faults are counted together."""
    if isinstance(error, UnidentifiedImageError):
        return next(
            (reason for pattern, reason in _OTHER_KINDS if re.match(pattern, data, re.DOTALL)), "not an image"
        )
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    if isinstance(error, bombs) or "MAX_TEXT" in str(error):  # a profile or a text chunk in a PNG
        return "decompression bomb"
    if isinstance(error, MemoryError):
        return "more memory than there is"
    if "truncated" in str(error).casefold():
        return "truncated image"
    return f"broken image ({type(error).__name__})"


# Beginnings of files that often have the suffix of an image but cannot be decoded here.
_CONVERT = "which is not read: convert it to PNG or JPEG"
_OTHER_KINDS = (
    (rb".{4}ftyp(hei|hev|mif1|msf1)", f"HEIC image, {_CONVERT}"),
    (rb"8BPS", f"Photoshop file, {_CONVERT}"),
    (rb"%PDF", f"PDF file, {_CONVERT}"),
    (rb"%!PS", f"PostScript file, {_CONVERT}"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", f"SVG drawing, {_CONVERT}"),
    (rb"(?i)\s*<(!doctype )?html", "web page, not an image: fetch the file again"),
    (rb"version https://git-lfs", "Git LFS pointer, not an image: run git lfs pull"),
)
