"""Grey levels and colours of more than 8 bits."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from domainclip.data.files import locations
from domainclip.data.images.bit_depth import (
    BitDepthSettings,
    NoFiniteValue,
    colour_levels,
    grey_levels,
    grey_limits,
)
from domainclip.data.images.decode import decode_image
from domainclip.data.images.digests import image_digests
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import encoded

_SCENE = np.random.default_rng(0).integers(100, 4000, (64, 64)).astype(np.uint16)


def _hot(values: np.ndarray, level: int = 65535) -> np.ndarray:
    hot = values.copy()
    hot[3, 3] = level
    return hot


def _png16(values: np.ndarray, colour: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_a_hot_pixel_does_not_darken_an_image_of_sixteen_bits(kind: str) -> None:
    shown = np.asarray(decode_image({"bytes": encoded(Image.fromarray(_hot(_SCENE)), kind)}))[..., 0]
    assert 100 < shown.mean() < 150
    assert shown[3, 3] == 255
    depth = grey_levels(_hot(_SCENE), BitDepthSettings(scaling="depth"))  # the control
    assert depth.mean() < 10


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.int16])
def test_a_hot_pixel_in_other_types(kind: Any) -> None:
    values = _SCENE.astype(kind) - 500
    values[5, 5] = 32000 if kind == np.int16 else 10**9
    assert 100 < grey_levels(values).mean() < 150


def test_sparse_counts_are_visible() -> None:
    counts = np.zeros((64, 64), np.uint16)
    counts[::16, ::16] = np.arange(1, 17).reshape(4, 4)
    shown = grey_levels(_hot(counts))
    assert shown[48, 48] == 255
    assert (shown[::16, ::16] > 10).all()
    assert not shown[1].any()


def test_a_narrow_range_far_from_black_is_stretched() -> None:
    # CT in 16 bits is often stored with 32768 added.
    values = (32768 + np.arange(-1000, 1000)).astype(np.uint16).reshape(40, 50)
    shown = grey_levels(values)
    assert (shown.min(), shown.max(), len(np.unique(shown))) == (0, 255, 256)


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_an_image_that_uses_its_depth_is_scaled_by_it(depth: int) -> None:
    values = np.linspace(0, 2**depth - 1, 4096).astype(np.uint16).reshape(64, 64)
    assert grey_limits(values) == (0, 2**depth - 1)
    # A quarter of the range is enough.
    assert grey_limits((values // 3).astype(np.uint16) if depth == 16 else values)[0] == 0


def test_an_eight_bit_image_in_sixteen_bits_stays_the_same() -> None:
    eight = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    assert (grey_levels(eight.astype(np.uint16) * 257) == eight).all()
    assert (grey_levels(eight.astype(np.uint16)) == eight).all()


def test_each_scaling_by_hand() -> None:
    values = np.array([[0, 1000, 2000, 3000, 4000]], np.uint16)
    assert grey_limits(values, BitDepthSettings(scaling="depth")) == (0, 4095)
    assert grey_limits(values, BitDepthSettings(scaling="range")) == (0, 4000)
    halves = BitDepthSettings(scaling="percentiles", percentiles=(25, 75))
    assert grey_limits(values, halves) == (1000, 3000)
    assert grey_levels(values, halves).tolist() == [[0, 0, 128, 255, 255]]
    assert grey_levels(values, halves, inverted=True).tolist() == [[255, 255, 128, 0, 0]]


def test_settings_in_a_location_and_their_faults() -> None:
    data = encoded(Image.fromarray(_hot(_SCENE)), "PNG")
    path = locations.join_location("a.png", BitDepthSettings(scaling="depth").fragment())
    assert path == "a.png#scaling=depth"
    assert np.asarray(decode_image({"path": path, "bytes": data})).mean() < 10
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": "a.png#percentiles=9,1", "bytes": data})
    assert caught.value.reason == "no such setting of the bit depth: percentiles"
    for wrong in ({"scaling": "none"}, {"percentiles": [1]}, {"percentiles": "a,b"}):
        with pytest.raises(ValidationError):
            BitDepthSettings.model_validate(wrong)
    # The caches tell both apart.
    plain, other = image_digests([{"path": "a.png", "bytes": data}, {"path": path, "bytes": data}])
    assert plain != other


def test_the_cards_settings_reach_the_formats_that_they_are_for() -> None:
    from domainclip.data.images.image_settings import ImageSettings, with_settings

    settings = ImageSettings.model_validate({"bit_depth": {"scaling": "depth"}, "fits": {"hdu": ["SCI", 0]}})
    for head, path in (
        (b"\x89PNG", "image#scaling=depth"),
        (b"SIMPLE  =", "image#hdu=SCI%2C0"),
        (b"\0" * 128 + b"DICM", None),
    ):
        assert with_settings({"path": None, "bytes": head}, settings)["path"] == path
    image = {"path": "a.png", "bytes": b"\x89PNG"}
    assert with_settings(image, ImageSettings()) is image


@pytest.mark.parametrize("colour", [2, 6])
def test_colours_of_twelve_bits_in_sixteen(colour: int) -> None:
    values = np.random.default_rng(2).integers(0, 4096, (16, 16, 3 if colour == 2 else 4)).astype(np.uint16)
    if colour == 6:
        values[..., 3] = 65535
    shown = np.asarray(decode_image({"bytes": _png16(values, colour)}))
    assert (shown == values[..., :3] >> 4).all()


def test_colours_by_their_depth() -> None:
    full = np.array([[[0, 256, 65535]]], np.uint16)
    assert colour_levels(full).tolist() == [[[0, 1, 255]]]
    assert colour_levels(np.array([[[0, 16, 4095]]], np.uint16)).tolist() == [[[0, 1, 255]]]
    assert colour_levels(np.array([[[0, 16, 255]]], np.uint16)).tolist() == [[[0, 16, 255]]]
    assert colour_levels(np.array([[[0.0, 0.5, 1.0]]], np.float32)).tolist() == [[[0, 128, 255]]]
    assert colour_levels(np.array([[[-1.0, 1.0, 3.0]]], np.float32)).tolist() == [[[0, 128, 255]]]
    hot = np.full((40, 40, 3), 100, np.uint16)
    hot[0, 0] = 65535
    assert colour_levels(hot)[1, 1].tolist() == [100, 100, 100]


def test_nothing_finite() -> None:
    with pytest.raises(NoFiniteValue):
        grey_levels(np.full((2, 2), np.nan))
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), np.inf, np.float32)).save(stream, "TIFF")
    with pytest.raises(UnreadableImage, match="no finite value"):
        decode_image({"bytes": stream.getvalue()})


def test_large_images_are_scaled_in_strips() -> None:
    values = np.tile(np.arange(2048, dtype=np.uint16) * 32, (1100, 1))
    assert (grey_levels(values) == grey_levels(values[:4])[0]).all()
