"""TIFF: every sample type, photometric interpretation, byte order and layout shows the same image."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from domainclip.data.images.decode import decode_image, image_header
from domainclip.errors import UnreadableImage

GREY = np.array([[0, 64, 128, 192, 255, 255]] * 6, np.uint8)
_SIZES = {3: "H", 4: "I"}


def made_tiff(
    samples: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    planar: int = 1,
    compression: int = 1,
    predictor: int = 1,
    tile: int = 0,
    **tags: Sequence[int],
) -> bytes:
    """A TIFF of one page; `samples` (rows, columns, s); further `tags` as t339=[2]."""
    samples = samples[..., None] if samples.ndim == 2 else samples
    height, width, count = samples.shape
    planes = [samples[..., i : i + 1] for i in range(count)] if planar == 2 else [samples]
    blocks = [block for plane in planes for block in _blocks(plane, tile)]
    if predictor == 2:
        blocks = [np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1])) for block in blocks]
    data = [block.astype(block.dtype.newbyteorder(order)).tobytes() for block in blocks]
    data = [zlib.compress(block) for block in data] if compression == 8 else data
    entries: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [samples.dtype.itemsize * 8] * count),
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [count]),
        284: (3, [planar]),
        317: (3, [predictor]),
        339: (3, [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * count),
        324 if tile else 273: (4, [0] * len(data)),
        325 if tile else 279: (4, [len(block) for block in data]),
    }
    entries |= {322: (4, [tile]), 323: (4, [tile])} if tile else {278: (4, [height])}
    entries |= {int(key[1:]): (3, values) for key, values in tags.items()}
    return _written(entries, data, order)


def _blocks(plane: np.ndarray, tile: int) -> list[np.ndarray]:
    if not tile:
        return [plane]
    rows, columns = (-(-edge // tile) * tile for edge in plane.shape[:2])
    padded = np.zeros((rows, columns, plane.shape[2]), plane.dtype)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    return [padded[y : y + tile, x : x + tile] for y in range(0, rows, tile) for x in range(0, columns, tile)]


def _written(entries: dict[int, tuple[int, Sequence[int]]], data: list[bytes], order: str) -> bytes:
    def packed(kind: int, values: Sequence[int]) -> bytes:
        return struct.pack(f"{order}{len(values)}{_SIZES[kind]}", *values)

    start = 8 + 2 + 12 * len(entries) + 4
    outside = sum(len(packed(*entry)) for entry in entries.values() if len(packed(*entry)) > 4)
    starts = np.cumsum([start + outside, *map(len, data)])[:-1].tolist()
    table, values = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        body = packed(kind, starts if tag in (273, 324) else numbers)
        place = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(f"{order}I", start + len(values))
        values += body if len(body) > 4 else b""
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + place
    head = b"II*\0" if order == "<" else b"MM\0*"
    return (
        head
        + struct.pack(f"{order}IH", 8, len(entries))
        + table
        + struct.pack(f"{order}I", 0)
        + values
        + b"".join(data)
    )


def _shown(data: bytes) -> np.ndarray:
    return np.asarray(decode_image({"bytes": data}))


def _reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        _shown(data)
    return caught.value.reason


_SAMPLES = {
    "uint8": GREY,
    "uint16": GREY.astype(np.uint16) * 257,
    "uint16-of-12-bits": (GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16),
    "int8": (GREY.astype(np.int16) - 128).astype(np.int8),
    "int16": (GREY.astype(np.int16) - 100) * 100,
    "uint32": GREY.astype(np.uint32) * 16843009,
    "uint32-small": GREY.astype(np.uint32),
    "int32": (GREY.astype(np.int32) - 100) * 100_000,
    "float16": GREY.astype(np.float16) / 256,
    "float32": GREY.astype(np.float32) / 255,
    "float64": GREY.astype(np.float64) * 1e200,
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", _SAMPLES)
def test_grey_of_every_type(kind: str, photometric: int, order: str) -> None:
    shown = _shown(made_tiff(_SAMPLES[kind], photometric, order=order))[..., 0].astype(int)
    expected = GREY if photometric else 255 - GREY.astype(int)  # WhiteIsZero
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("kind", ["uint16", "int16", "float64", "uint32"])
@pytest.mark.parametrize(
    "layout", [{"compression": 8}, {"tile": 16}, {"tile": 4}, {"tile": 4, "compression": 8}]
)
def test_tiles_and_deflate(kind: str, layout: dict[str, int]) -> None:
    assert (_shown(made_tiff(_SAMPLES[kind], 0, **layout)) == _shown(made_tiff(_SAMPLES[kind], 0))).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32"])
def test_the_predictor_of_differences(kind: str, order: str) -> None:
    data = made_tiff(_SAMPLES[kind], 0, order=order, compression=8, predictor=2)
    assert (_shown(data) == _shown(made_tiff(_SAMPLES[kind], 0))).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64", "uint16-of-12-bits"])
def test_colours_of_every_type(kind: str, planar: int, order: str) -> None:
    colour = np.dstack([GREY, GREY[:, ::-1], GREY // 2])
    samples = {
        "uint8": colour,
        "uint16": colour.astype(np.uint16) * 257,
        "float32": colour.astype(np.float32) / 255,
        "float64": colour.astype(np.float64) / 255,
        "uint16-of-12-bits": colour.astype(np.uint16) * 16,
    }[kind]
    assert (_shown(made_tiff(samples, 2, order=order, planar=planar)) == colour).all()


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_grey_with_alpha_over_white(kind: str, photometric: int) -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:, 0] = 0
    factor = 1 if kind == "uint8" else 257
    samples = np.dstack([GREY, alpha]).astype(kind) * np.dtype(kind).type(factor)
    shown = _shown(made_tiff(samples, photometric, t338=[2]))[0, :, 0].tolist()
    expected = GREY[0].tolist() if photometric else (255 - GREY[0]).tolist()
    assert shown == [255, *expected[1:]]


def test_orientation_applies_to_every_type() -> None:
    data = made_tiff(_SAMPLES["float64"], 1, t274=[6])
    assert (_shown(data)[..., 0] == np.rot90(GREY, -1)).all()
    header = image_header(data)
    assert header is not None
    assert (header.mode, header.rotated, header.kind) == ("float64", True, "TIFF")


def _two_pages(first: bytes, second: bytes) -> bytes:
    """Both pages in one file, little-endian, of equal structure."""
    base = len(first)
    count = struct.unpack_from("<H", first, 8)[0]
    joined = bytearray(first + second)
    struct.pack_into("<I", joined, 10 + 12 * count, base + 8)
    for entry in range(struct.unpack_from("<H", second, 8)[0]):
        place = base + 10 + 12 * entry
        tag, kind, number = struct.unpack_from("<HHI", joined, place)
        if tag == 273 or number * {3: 2, 4: 4}[kind] > 4:
            struct.pack_into("<I", joined, place + 8, struct.unpack_from("<I", joined, place + 8)[0] + base)
    return bytes(joined)


def test_a_preview_before_the_image_is_passed_over() -> None:
    preview, image = made_tiff(GREY[:2], 1, t254=[1]), made_tiff(GREY, 1, t254=[0])
    assert (_shown(_two_pages(preview, image))[..., 0] == GREY).all()
    first = made_tiff(255 - GREY, 1, t254=[0])  # the control: of two images, the first
    assert (_shown(_two_pages(first, image))[..., 0] == 255 - GREY).all()
    assert (_shown(preview)[..., 0] == GREY[:2]).all()  # nothing but a preview


def test_the_raw_file_of_a_camera_is_named() -> None:
    reason = "camera raw file, which is not read: convert it to PNG or JPEG"
    assert _reason(made_tiff(GREY, 1, t254=[1], t330=[9])) == reason


@pytest.mark.parametrize("edge", [256, 257])
@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_a_page_without_pixels(edge: int, kind: str) -> None:
    data = made_tiff(_SAMPLES[kind], 1)
    place = data.index(struct.pack("<HHII", edge, 4, 1, 6))
    assert _reason(data[: place + 8] + b"\0\0\0\0" + data[place + 12 :]) == "no pixels"


def test_a_decompression_bomb() -> None:
    data = made_tiff(_SAMPLES["float64"], 1, compression=8)
    for tag in (256, 257):
        small, large = (struct.pack("<HHII", tag, 4, 1, edge) for edge in (6, 9000))
        data = data.replace(small, large)
    assert _reason(data) == "decompression bomb"


def test_absurd_and_damaged_pages() -> None:
    data = made_tiff(_SAMPLES["float64"], 1)
    wide = data.replace(struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 2**31))
    assert _reason(wide) == "more than 89478485 pixels"
    assert _reason(data[:-20]) == "truncated image"
    empty = made_tiff(np.full((4, 4), np.nan), 1)
    assert _reason(empty) == "no finite value"
    unread = "TIFF layout that is not read: convert it to PNG, or to a TIFF without compression"
    assert _reason(made_tiff(_SAMPLES["float64"], 1, t259=[5])) == unread
