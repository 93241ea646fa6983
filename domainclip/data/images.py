"""Any picture as 8-bit RGB, or a DataError that says why not.

Decoders raise whatever they like on broken files, so everything they raise is caught here, once.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from domainclip.data import dicom
from domainclip.data.unreadable import UnreadableImage

# Formats that decode pixels and do nothing else: not EPS or PDF, which start programs, nor FITS.
_WANTED = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "MPO", "PPM", "ICO", "AVIF")
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)  # some need a library that Pillow may lack
# Pillow's own bound: what is larger is a mistake or an attack, and costs 270 MB of memory.
MAX_PIXELS = 89_478_485
# Transparent pixels become white, as pages show them; a caption's writer saw the picture that way.
BACKGROUND = (255, 255, 255)


def decode(image: Mapping[str, Any], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in the `image` column of a corpus, upright, as RGB.

    Raises: UnreadableImage, a DataError, naming the file and what is wrong with it.
    """
    name = str(image.get("path") or "image")
    try:
        data = image["bytes"] if image.get("bytes") is not None else Path(name).read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(name, "missing file") from None
    except OSError as error:
        raise UnreadableImage(name, f"unreadable file ({error.strerror})") from None
    if not data:
        raise UnreadableImage(name, "empty file")
    if dicom.is_dicom(data):
        return dicom.picture(data, name, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(data, name, max_pixels)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, _reason(error)) from None


def _decode(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        # Only the header is read so far: refuse before memory is taken.
        if opened.width * opened.height > max_pixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        opened.seek(0)  # of an animation, the first frame
        opened.load()
        return _rgb(_upright(opened))


def _upright(image: Image.Image) -> Image.Image:
    """The EXIF orientation applied; a broken EXIF block leaves the picture as it is stored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of any depth in 0…255; Pillow's own conversion would turn all above 255 white.

    The depth is 8, 12 or 16 bits, the first that holds the brightest pixel: detectors with 12 bits are
    stored in 16. Floats, negative and 32-bit values have no such depth: their range is stretched.
    """
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    depth = next((bits for bits in (8, 12, 16) if high < 2**bits), None)
    if depth is not None and low >= 0 and bool((values == np.rint(values)).all()):
        low, high = 0.0, float(2**depth - 1)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint((values - low) / (high - low) * 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    """A few words without values of the file, so that equal faults are counted together."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "decompression bomb"
    if "truncated" in str(error).casefold():
        return "truncated image"
    return f"broken image ({type(error).__name__})"
