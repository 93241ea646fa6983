"""Why a file cannot be decoded, in a few words that quote no value of it."""

from __future__ import annotations

import re

from PIL import Image, UnidentifiedImageError

from domainclip.data.images import tiff
from domainclip.data.images.bit_depth import NoFiniteValue

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
    (rb".{4}ftypavi[fs]", f"AVIF image, {_CONVERT}"),
    (rb".{4}ftypcrx|FUJIFILMCCD-RAW|IIU\0|IIR[OS]", f"camera raw file, {_CONVERT}"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "video, not an image: take frames from it"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", f"JPEG XL image, {_CONVERT}"),
    (rb"II\xbc", f"JPEG XR image, {_CONVERT}"),
    (rb"v/1\x01|#\?RADIANCE|#\?RGBE", f"image of high dynamic range, {_CONVERT}"),
    (rb"\x93NUMPY", "NumPy array, which is not read: save it as TIFF, PNG or FITS"),
    (
        rb"\x89HDF|CDF[\x01\x02\x05]",
        "HDF5 or NetCDF file, which is not read: save its arrays as TIFF",
    ),
    (rb"\x5c\x01\0\0.{340}n[+i]1\0", "NIfTI volume, which is not read: save its slices as PNG"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|BZh|\xfd7zXZ", "archive, not an image: unpack it"),
    (rb"data:image/|b['\"]|iVBORw0K|/9j/4", "text with an image in it, not an image: decode it to a file"),
)

_MAX_SEGMENTS = 100  # of a JPEG before its frame header
_UNREAD_FRAMES = {0xC3: "lossless JPEG", 0xC7: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS image"}


def reason(error: Exception, data: bytes) -> str:
    """A few words that quote no value of the file, so that equal faults are counted together."""
    if isinstance(error, NoFiniteValue):
        return "no finite value"
    if isinstance(error, UnidentifiedImageError):
        return kind_of_file(data)
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    if isinstance(error, bombs) or "MAX_TEXT" in str(error):  # a profile or a text chunk in a PNG
        return "decompression bomb"
    if isinstance(error, MemoryError):
        return "more memory than there is"
    if "truncated" in str(error).casefold():
        return "truncated image"
    return _jpeg_kind(data) or f"broken image ({type(error).__name__})"


def kind_of_file(data: bytes) -> str:
    """The reason for bytes that no decoder of images recognises."""
    return (
        tiff.unread_reason(data)
        or _jpeg_kind(data)
        or next((reason for pattern, reason in _OTHER_KINDS if re.match(pattern, data, re.DOTALL)), "")
        or "not an image"
    )


def _jpeg_kind(data: bytes) -> str:
    """The reason for a JPEG that is lossless, not of 8 bits or without pixels; "" for any other file."""
    position = 2 if data[:3] == b"\xff\xd8\xff" else len(data)
    for _ in range(_MAX_SEGMENTS):
        if position + 9 > len(data) or data[position] != 0xFF:
            return ""
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _UNREAD_FRAMES:
            return f"{_UNREAD_FRAMES[marker]}, {_CONVERT}"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits = data[position + 4]
            pixels = any(data[position + 5 : position + 7]) and any(data[position + 7 : position + 9])
            if bits != 8:
                return f"JPEG of other than 8 bits, {_CONVERT}"
            return "" if pixels else "no pixels"
        position += 2 + length
    return ""
