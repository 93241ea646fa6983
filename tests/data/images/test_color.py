"""Conversion of colours by an embedded profile, against values worked by hand."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image, ImageCms

from domainclip.data.images import color
from domainclip.data.images.decode import decode_image
from tests.data.made_corpora import encoded

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _swapped() -> bytes:
    """A profile of sRGB with red and green exchanged: (r, g, b) of the file is (g, r, b) in sRGB."""
    data = bytearray(_SRGB.replace(b"s\0R\0G\0B", b"s\0W\0A\0P").replace(b"sRGB built-in", b"swap built-in"))
    count = struct.unpack(">I", data[128:132])[0]
    for at in range(132, 132 + 12 * count, 12):
        name = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
    swapped = bytes(data)
    return swapped.replace("sRGB".encode("utf-16-be"), "SWAP".encode("utf-16-be"))


PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [10, 200, 90], [77, 77, 77]]], np.uint8)
CONVERTED = PIXELS[..., [1, 0, 2]].astype(int)


def _decoded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return np.asarray(decode_image({"bytes": encoded(image, kind, **options)})).astype(int)


def test_a_profile_is_applied() -> None:
    for kind in ("PNG", "TIFF"):
        decoded = _decoded(Image.fromarray(PIXELS), kind, icc_profile=_swapped())
        assert np.abs(decoded - CONVERTED).max() <= 1
    assert _decoded(Image.fromarray(PIXELS)).tolist() == PIXELS.tolist()  # the control: without a profile


def test_srgb_changes_nothing() -> None:
    assert _decoded(Image.fromarray(PIXELS), icc_profile=_SRGB).tolist() == PIXELS.tolist()


def test_profiles_of_palette_and_transparent_images_are_applied() -> None:
    palette = Image.new("P", (1, 1))
    palette.putpalette([200, 50, 20])
    assert np.abs(_decoded(palette, icc_profile=_swapped())[0, 0] - [50, 200, 20]).max() <= 1
    layer = Image.new("RGBA", (2, 1), (200, 50, 20, 255))
    layer.putpixel((1, 0), (200, 50, 20, 0))
    decoded = _decoded(layer, icc_profile=_swapped())[0]
    assert np.abs(decoded - [[50, 200, 20], [255, 255, 255]]).max() <= 1


def test_grey_images_are_unchanged() -> None:
    grey = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    assert _decoded(grey, icc_profile=_swapped())[..., 0].tolist() == np.asarray(grey).tolist()


def test_a_broken_profile_does_not_make_an_image_unreadable() -> None:
    for profile in (b"", b"x", _SRGB[:200], _SRGB[:130] + b"\xff" * 400):
        assert color.to_srgb(Image.fromarray(PIXELS), profile).tobytes() == PIXELS.tobytes()


def test_a_profile_for_other_colours_is_ignored() -> None:
    inks = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert color.to_srgb(inks, _swapped()).mode == "CMYK"
