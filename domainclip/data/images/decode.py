"""Any picture as 8-bit RGB, or a DataError that says why not.

Decoders raise whatever they like on broken files, so everything they raise is caught here, once.
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
from domainclip.data.images import color, fits
from domainclip.errors import UnreadableImage

# Formats that decode pixels and do nothing else: not EPS or PDF, which start programs; FITS is our own.
_SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "MPO", "PPM", "ICO", "AVIF")
Image.init()
FORMATS = tuple(
    name for name in _SAFE_FORMATS if name in Image.OPEN
)  # some need a library that Pillow may lack
# Pillow's own bound: what is larger is a mistake or an attack, and costs 270 MB of memory.
MAX_PIXELS = 89_478_485
_STRIP_PIXELS = 2**20  # pixels whose grey levels are worked out at once
# Transparent pixels become white, as pages show them; a caption's writer saw the picture that way.
BACKGROUND = (255, 255, 255)
# Part of every key of what was computed from pixels: raise it when the same file gives other pixels.
DECODING_VERSION = 1


def decode_image(image: Mapping[str, Any], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in the `image` column of a corpus, upright, as RGB.

    Raises: UnreadableImage, a DataError, naming the file and what is wrong with it.
    """
    name = str(image.get("path") or "image")
    file, place = locations.split_location(name)
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
                return rendering.render_image(
                    data, name, max_pixels, place.get("frame", 0), place.get("window", 0)
                )
            if fits.is_fits(data):
                return fits.render_fits(data, file, place, max_pixels)
            return _decode_with_pillow(data, name, max_pixels)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, _reason(error, data)) from None


@dataclass(frozen=True)
class ImageHeader:
    """What the header of a picture says: for counts of what a corpus holds."""

    kind: str  # JPEG, PNG …
    mode: str  # L, RGB, CMYK, I;16 …
    width: int
    height: int
    frames: int  # of which the first is shown
    turned: bool  # by its EXIF orientation
    profile: bool  # an ICC profile is embedded


def image_header(data: bytes) -> ImageHeader | None:
    """What a picture's header says; None for DICOM, FITS and what is no picture."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            warnings.simplefilter("ignore")
            return ImageHeader(
                kind=str(opened.format),
                mode=opened.mode,
                width=opened.width,
                height=opened.height,
                frames=getattr(opened, "n_frames", 1),
                turned=opened.getexif().get(0x0112, 1) not in (0, 1),
                profile="icc_profile" in opened.info,
            )
    except Exception:
        return None


def _decode_with_pillow(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        # Only the header is read so far: refuse before memory is taken.
        if opened.width * opened.height > max_pixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        opened.seek(0)  # of an animation, the first frame
        opened.load()
        return upright_rgb(opened)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB in sRGB, with its EXIF orientation applied."""
    return _to_rgb(_apply_orientation(image))


def _apply_orientation(image: Image.Image) -> Image.Image:
    """The EXIF orientation applied; a broken EXIF block leaves the picture as it is stored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        shown = color.to_srgb(layer.convert("RGB"), profile).convert("RGBA")
        shown.putalpha(layer.getchannel("A"))
        ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return Image.alpha_composite(ground, shown).convert("RGB")
    # The colours of a palette are converted like those of any other picture.
    coloured = image.convert("RGB") if image.mode == "P" else image
    return color.to_srgb(coloured, profile).convert("RGB")


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """Grey levels of any depth in 0…255; Pillow's own conversion would turn all above 255 white.

    The depth is 8, 12 or 16 bits, the first that holds the brightest pixel: detectors with 12 bits are
    stored in 16. Floats, negative and 32-bit values have no such depth: their range is stretched.
    """
    low, high, whole = np.inf, -np.inf, True
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            whole = whole and bool((finite == np.rint(finite)).all())
    grey = np.zeros((image.height, image.width), np.uint8)
    depth = next((bits for bits in (8, 12, 16) if high < 2**bits), None)
    if depth is not None and 0 <= low <= high and whole:
        low, high = 0.0, float(2**depth - 1)
    if high <= low:  # of one level alone, or without any number
        return grey
    for top, values in _strips(image):
        # What is no number was not measured: it is black, and never counts for the range.
        shares = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
        grey[top : top + len(values)] = np.rint(shares * 255).astype(np.uint8)
    return grey


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a grey picture as float64, and which is the first: the whole would take 8 bytes a pixel."""
    tall = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, tall):
        part = image.crop((0, top, image.width, min(image.height, top + tall)))
        yield top, np.asarray(part).astype(np.float64)


def _reason(error: Exception, data: bytes) -> str:
    """A few words without values of the file, so that equal faults are counted together."""
    if isinstance(error, UnidentifiedImageError):
        return next(
            (said for begin, said in _OTHER_KINDS if re.match(begin, data, re.DOTALL)), "not an image"
        )
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    if isinstance(error, bombs) or "MAX_TEXT" in str(error):  # a profile or a text in a PNG
        return "decompression bomb"
    if isinstance(error, MemoryError):
        return "more memory than there is"
    if "truncated" in str(error).casefold():
        return "truncated image"
    return f"broken image ({type(error).__name__})"


# What stands under the name of a picture most often and is none that is read here.
_CONVERT = "which is not read: convert it to PNG or JPEG"
_OTHER_KINDS = (
    (rb".{4}ftyp(hei|hev|mif1|msf1)", f"HEIC picture, {_CONVERT}"),
    (rb"8BPS", f"Photoshop file, {_CONVERT}"),
    (rb"%PDF", f"PDF file, {_CONVERT}"),
    (rb"%!PS", f"PostScript file, {_CONVERT}"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", f"SVG drawing, {_CONVERT}"),
    (rb"(?i)\s*<(!doctype )?html", "web page, not an image: fetch the file again"),
    (rb"version https://git-lfs", "Git LFS pointer, not an image: run git lfs pull"),
)
