"""Decoding of images of any format to 8-bit RGB.

Decoders raise arbitrary exceptions on broken files, so all of them are caught here, once.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import ValidationError

from domainclip.data.dicom import reading, rendering
from domainclip.data.files import locations
from domainclip.data.images import bit_depth, color, fault_reasons, fits, fits_settings, native_output, tiff
from domainclip.data.images.bit_depth import BitDepthSettings, colour_levels, grey_levels
from domainclip.errors import UnreadableImage

# Formats whose decoders run no other program, as those of EPS and PDF do. FITS is decoded by `fits`.
_SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "MPO", "PPM", "ICO", "AVIF")
Image.init()
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its lines would break into those of the progress
FORMATS = tuple(name for name in _SAFE_FORMATS if name in Image.OPEN)  # Pillow may lack some
# Pillow's own limit: a larger image is a mistake or an attack, and takes 270 MB of memory.
MAX_PIXELS = 89_478_485
_ORIENTATION = 0x0112  # tag of EXIF
# Transparent pixels become white, as web pages show them: captions were written for that appearance.
BACKGROUND = (255, 255, 255)
# Part of the cache keys of everything computed from pixels: raise it when a file decodes to other pixels.
DECODING_VERSION = 2


def decode_image(
    image: Mapping[str, Any], max_pixels: int = MAX_PIXELS, *, smallest_side: int | None = None
) -> Image.Image:
    """An image of the `image` column, {path, bytes}, upright, as RGB.

    With `smallest_side`, a JPEG file is decoded to the smallest of 1/1, 1/2, 1/4 and 1/8 of its size whose
    sides are at least so long: several times faster, and not equal to resizing the whole image.

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
                settings = _bit_depth_settings(fragment, name)
                # libtiff prints a line for every broken tag and strip.
                with native_output.captured() if data[:2] in (b"II", b"MM") else nullcontext():
                    decoded = _decode_with_pillow(data, name, max_pixels, settings, smallest_side)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, fault_reasons.reason(error, data)) from None
    if not all(decoded.size):  # nothing can be resized, shown or encoded
        raise UnreadableImage(name, "no pixels")
    return decoded


def _bit_depth_settings(fragment: Mapping[str, str], name: str) -> BitDepthSettings:
    chosen = {key: fragment[key] for key in BitDepthSettings.model_fields if key in fragment}
    try:
        return BitDepthSettings.model_validate(chosen) if chosen else bit_depth.DEFAULT
    except ValidationError as error:
        key = error.errors(include_url=False)[0]["loc"][0]
        raise UnreadableImage(name, f"no such setting of the bit depth: {key}") from None


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
        with warnings.catch_warnings(action="ignore"):  # of Pillow, for every broken tag
            page = _tiff_page(data, "")
            if page is not None and page.needs_own_decoder:
                return _header_of_page(page)
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                return ImageHeader(
                    kind=str(opened.format),
                    mode=opened.mode,
                    width=opened.width,
                    height=opened.height,
                    frames=getattr(opened, "n_frames", 1),
                    rotated=opened.getexif().get(_ORIENTATION, 1) not in (0, 1),
                    has_icc_profile="icc_profile" in opened.info,
                )
    except Exception:
        return None


def _header_of_page(page: tiff.TiffPage) -> ImageHeader:
    return ImageHeader(
        kind="TIFF",
        mode=page.sample_type,
        width=page.value(256, 0),
        height=page.value(257, 0),
        frames=1 + page.has_more,
        rotated=page.value(274, 1) not in (0, 1),
        has_icc_profile=34675 in page.tags,
    )


def _decode_with_pillow(
    data: bytes, name: str, max_pixels: int, settings: BitDepthSettings, smallest_side: int | None
) -> Image.Image:
    page = _tiff_page(data, name)
    if page is not None and page.needs_own_decoder:
        try:
            return upright_rgb(tiff.decode_samples(page, data, max_pixels, settings))
        except tiff.TooManyPixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels") from None
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        # Only the header was read so far: refuse before memory is allocated.
        if opened.width * opened.height > max_pixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        opened.seek(page.number if page else 0)  # the first frame of an animation
        if opened.width * opened.height > max_pixels:  # of the page, which may be larger than its preview
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        has_deep_colours = opened.mode in ("RGB", "RGBA") and ";16" in str(opened.tile)
        if smallest_side is not None and opened.format == "JPEG":
            opened.draft(None, (smallest_side, smallest_side))
        opened.load()
        inverted = page is not None and page.white_is_zero
        image = _with_low_bytes(opened, data) if has_deep_colours else opened
        return _to_rgb(_apply_orientation(image), settings, inverted)


def _tiff_page(data: bytes, name: str) -> tiff.TiffPage | None:
    """The page of a TIFF that is shown; None for other files, and for broken tags, which Pillow reports."""
    try:
        return tiff.read_page(data, name)
    except UnreadableImage:
        raise
    except Exception:
        return None


def _with_low_bytes(image: Image.Image, data: bytes) -> Image.Image:
    """A colour image of 16 bits, of which Pillow keeps the high bytes, in 8 bits by its real depth.

    Values of 12-bit cameras would be nearly black: their low bytes are read by the opposite byte order.
    """
    high = np.asarray(image)
    if np.quantile(high[..., :3], 0.999, method="higher") >= 16:
        return image
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        opened.tile = [tile._replace(args=_opposite_order(tile.args)) for tile in opened.tile]
        low = np.asarray(opened)
    values = high[..., :3].astype(np.uint16) * 256 + low[..., :3]
    levels = np.concatenate([colour_levels(values), high[..., 3:]], axis=2)
    deep = Image.fromarray(np.ascontiguousarray(levels))
    deep.info = dict(image.info)
    if orientation := image.getexif().get(_ORIENTATION):
        deep.getexif()[_ORIENTATION] = orientation
    return deep


def _opposite_order(args: Any) -> Any:
    """The arguments of a decoder with the two bytes of each sample exchanged."""
    if isinstance(args, tuple):
        return (_opposite_order(args[0]), *args[1:])
    native = "L" if sys.byteorder == "little" else "B"
    order = args[-1] if args[-1] != "N" else native
    return args[:-1] + ("B" if order == "L" else "L")


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB in sRGB, with its EXIF orientation applied."""
    return _to_rgb(_apply_orientation(image))


def _apply_orientation(image: Image.Image) -> Image.Image:
    """The image rotated by its EXIF orientation; unchanged if the EXIF block is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(
    image: Image.Image, settings: BitDepthSettings = bit_depth.DEFAULT, inverted: bool = False
) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion would turn all levels above 255 white.
        return Image.fromarray(grey_levels(np.asarray(image), settings, inverted)).convert("RGB")
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
