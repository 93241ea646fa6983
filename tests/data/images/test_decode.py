from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from domainclip.data.images.decode import ImageHeader, decode_image, image_header
from domainclip.data.images.inspection import inspect_image
from domainclip.errors import DataError, ExitCode, UnreadableImage
from tests.data.made_corpora import encoded, noise_image


def _decoded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return np.asarray(decode_image({"path": None, "bytes": encoded(image, kind, **options)}))


def _reason(data: bytes, **options: int) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": "x.png", "bytes": data}, **options)
    return caught.value.reason


def test_from_a_path_and_from_bytes(tmp_path: Path) -> None:
    file = noise_image(tmp_path / "a.png")
    from_path, from_bytes = (
        decode_image({"path": str(file), "bytes": None}),
        decode_image({"bytes": file.read_bytes()}),
    )
    assert from_path.mode == from_bytes.mode == "RGB"
    assert from_path.tobytes() == from_bytes.tobytes() == Image.open(file).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_fault_23_sixteen_bits_keep_their_grey_levels(kind: str) -> None:
    """Fault 23: a ramp of 16 bits is not saturated."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = _decoded(Image.fromarray(ramp), kind)[..., 0].ravel()
    assert len(np.unique(grey)) == 256
    assert grey[0] == 0
    assert grey[-1] == 255
    # 32768 / 65535 * 255 = 127.5019…
    assert grey[32768] == 128
    assert bool((np.diff(grey.astype(int)) >= 0).all())
    # The control: Pillow's own conversion.
    assert len(np.unique(np.asarray(Image.fromarray(ramp).convert("L")))) < 257
    assert np.asarray(Image.fromarray(ramp).convert("L")).ravel()[300] == 255


@pytest.mark.parametrize(("brightest", "expected"), [(4095, 255), (2048, 128), (255, 255), (65535, 255)])
def test_the_depth_is_the_first_that_holds_the_brightest(brightest: int, expected: int) -> None:
    values = np.array([[0, brightest]], np.uint16)
    assert _decoded(Image.fromarray(values))[0, :, 0].tolist() == [0, expected]


def test_big_endian_sixteen_bits() -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\x00\x00\xff\xff")
    assert _decoded(image, "TIFF")[0, :, 0].tolist() == [0, 255]


def test_thirty_two_bits_and_floats_are_stretched() -> None:
    whole = Image.fromarray(np.array([[-100, 0, 100_000]], np.int32))
    assert _decoded(whole, "TIFF")[0, :, 0].tolist() == [0, 0, 255]
    floats = Image.fromarray(np.array([[-1.0, 0.0, 3.0, np.nan]], np.float32))
    assert _decoded(floats, "TIFF")[0, :, 0].tolist() == [0, 64, 255, 0]  # NaN is black
    far = Image.fromarray(np.array([[1000.5, np.nan, 1005.5, np.inf, 1010.5]], np.float32))
    assert _decoded(far, "TIFF")[0, :, 0].tolist() == [0, 0, 128, 255, 255]  # and does not affect the range
    nothing = encoded(Image.fromarray(np.full((1, 2), np.nan, np.float32)), "TIFF")
    assert _reason(nothing) == "no finite value"
    assert _decoded(Image.fromarray(np.full((1, 2), 0.5, np.float32)), "TIFF").max() == 0


def test_fault_24_transparent_pixels_become_white_and_hidden_colour_is_gone() -> None:
    """Fault 24: the colour of a pixel with alpha 0 is never used."""
    image = Image.fromarray(np.array([[[255, 0, 0, 0], [0, 0, 255, 255], [0, 0, 0, 51]]], np.uint8), "RGBA")
    # 51 / 255 of black over white is 204.
    assert _decoded(image)[0].tolist() == [[255, 255, 255], [0, 0, 255], [204, 204, 204]]
    grey = Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8), "LA")
    assert _decoded(grey)[0].tolist() == [[255] * 3, [10] * 3]


def test_a_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    assert _decoded(image, transparency=0)[0].tolist() == [[255, 255, 255], [0, 200, 0]]


def test_fault_24_one_bit() -> None:
    """Fault 24: black and white without grey."""
    image = Image.fromarray(np.array([[True, False, True]]))
    assert image.mode == "1"
    for kind in ("PNG", "TIFF", "BMP"):
        assert _decoded(image, kind)[0].tolist() == [[255] * 3, [0] * 3, [255] * 3]


def test_fault_24_a_palette_with_alpha_for_each_colour() -> None:
    """Fault 24: a tRNS chunk of several entries: 102/255 of (200, 0, 0) over white is (233, 153, 153)."""
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 0, 200, 0, 7, 8, 9])
    image.putdata([0, 1, 2])
    assert _decoded(image, transparency=bytes([102, 255, 0]))[0].tolist() == [
        [233, 153, 153],
        [0, 200, 0],
        [255, 255, 255],
    ]
    assert _decoded(image)[0].tolist() == [[200, 0, 0], [0, 200, 0], [7, 8, 9]]  # the control: without tRNS


def test_fault_24_grey_and_colour_with_one_transparent_value() -> None:
    """Fault 24: tRNS of a grey or RGB image names one value that is transparent."""
    assert _decoded(Image.fromarray(np.array([[5, 9]], np.uint8)), transparency=5)[0].tolist() == [
        [255] * 3,
        [9] * 3,
    ]
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert _decoded(image, transparency=(1, 2, 3))[0].tolist() == [[255] * 3, [4, 5, 6]]


def test_fault_23_sixteen_bits_in_colour_keep_their_high_byte() -> None:
    """Fault 23: three channels of 16 bits, which Pillow does not write, so the file is made by hand."""
    values = struct.pack(">6H", 0, 255, 256, 32767, 32768, 65535)
    assert np.asarray(decode_image({"bytes": _png(2, 1, b"\0" + values, depth=16, colour=2)}))[
        0
    ].tolist() == [
        [0, 0, 1],
        [127, 128, 255],
    ]


def test_fault_24_cmyk() -> None:
    """Fault 24: inks absorb light: r = (255 - c)(255 - k) / 255."""
    inks = [(0, 255, 255, 0), (255, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0), (100, 50, 0, 51)]
    expected = [[255, 0, 0], [0, 255, 255], [0, 0, 0], [255, 255, 255], [124, 164, 204]]
    image = Image.new("CMYK", (5, 1))
    image.putdata(inks)
    assert _decoded(image, "TIFF")[0].tolist() == expected
    for ink, colours in zip(inks, expected, strict=True):
        decoded = _decoded(Image.new("CMYK", (8, 8), ink), "JPEG", quality=100)[4, 4]
        assert np.abs(decoded.astype(int) - colours).max() <= 2, ink


def _adobe(data: bytes, transform: int) -> bytes:
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def test_fault_24_adobe_files_are_inverted_and_may_be_ycck() -> None:
    """Fault 24: Adobe stores 255 for no ink; with transform 2, C, M and Y as Y, Cb and Cr."""
    plain = encoded(
        Image.new("CMYK", (8, 8), (255 - 100, 255 - 128, 255 - 128, 255 - 200)), "JPEG", quality=100
    )
    assert plain.index(b"Adobe")
    # Stored are 100, 128, 128, 200. Read as such, red is 100 · 200 / 255 = 78, and so on.
    assert np.abs(np.asarray(decode_image({"bytes": plain}))[4, 4].astype(int) - [78, 100, 100]).max() <= 2
    # Read as YCCK: Y = 100 without colour gives stored inks of 255 - 100 = 155 each; 155 · 200 / 255 = 122.
    ycck = np.asarray(decode_image({"bytes": _adobe(plain, 2)}))[4, 4].astype(int)
    assert np.abs(ycck - [122, 122, 122]).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fault_24_exif_orientation_is_applied(orientation: int) -> None:
    """Fault 24: EXIF 1 to 8."""
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    steps: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(steps[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert _decoded(stored, exif=exif)[..., 0].tolist() == upright.tolist()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_leaves_the_image_as_stored() -> None:
    stored = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert _decoded(stored, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12").shape == (2, 3, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "MPO", "TIFF", "AVIF"])
def test_fault_24_an_animation_shows_its_first_frame_and_is_counted(kind: str) -> None:
    """Fault 24: of several frames, the first."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("MPO", "AVIF") else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    decoded = np.asarray(decode_image({"bytes": data}))
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= (2 if kind in ("MPO", "AVIF") else 0)
    header = image_header(data)
    assert header is not None
    assert (header.frames, header.width, header.height, header.rotated, header.has_icc_profile) == (
        3,
        16,
        16,
        False,
        False,
    )
    assert bool(inspect_image({"path": None, "bytes": data})["animated"])
    assert not inspect_image({"path": None, "bytes": encoded(frames[0])})["animated"]


def test_the_header_of_an_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    header = image_header(encoded(Image.new("CMYK", (4, 2)), "JPEG", exif=exif, icc_profile=b"x"))
    assert header == ImageHeader("JPEG", "CMYK", 4, 2, 1, rotated=True, has_icc_profile=True)
    assert image_header(b"hello") is None


def test_a_truncated_jpeg_names_file_and_fault(tmp_path: Path) -> None:
    file = noise_image(tmp_path / "cut.jpg", size=(64, 64))
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(DataError) as caught:
        decode_image({"path": str(file), "bytes": None})
    assert str(caught.value) == f"{file}: truncated image"
    assert caught.value.code == ExitCode.DATA


def test_faults_of_files(tmp_path: Path) -> None:
    for name, reason in [("none.png", "missing file"), ("", "unreadable file (Is a directory)")]:
        with pytest.raises(DataError) as caught:
            decode_image({"path": str(tmp_path / name), "bytes": None})
        assert str(caught.value) == f"{tmp_path / name}: {reason}"


def _png(
    width: int, height: int, data: bytes = b"", extra: bytes = b"", depth: int = 8, colour: int = 0
) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body + chunk(b"IEND", b"")


CONVERT = "which is not read: convert it to PNG or JPEG"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", f"PostScript file, {CONVERT}"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"HEIC image, {CONVERT}"),
        (b"8BPS\0\1", f"Photoshop file, {CONVERT}"),
        (b"%PDF-1.7\n", f"PDF file, {CONVERT}"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', f"SVG drawing, {CONVERT}"),
        (b"<!DOCTYPE html><html><title>404</title>", "web page, not an image: fetch the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer, not an image: run git lfs pull"),
        (_png(30_000, 30_000), "decompression bomb"),
        (_png(10_000, 10_000), "decompression bomb"),
        (_png(4, 4, b"\0"), "truncated image"),
        (b"GIF89a" + b"\0" * 3, "not an image"),
    ],
)
def test_faults_of_content(data: bytes, reason: str) -> None:
    assert _reason(data) == reason


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    assert _reason(_png(100, 100), max_pixels=9_999) == "more than 9999 pixels"


def test_a_text_chunk_that_is_a_decompression_bomb() -> None:
    body = b"x\0\0" + zlib.compress(b"a" * 80_000_000)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert _reason(_png(4, 4, b"\0" * 20, chunk)) == "decompression bomb"


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_whatever_a_decoder_raises_becomes_one_error(cut: int) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "TIFF", compression="tiff_lzw")
    data = bytearray(stream.getvalue())
    data[cut] ^= 0xFF
    with contextlib.suppress(UnreadableImage):
        assert decode_image({"path": "x", "bytes": bytes(data)}).mode == "RGB"


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png", "truncated image")))
    assert (error.name, error.reason, str(error)) == ("a.png", "truncated image", "a.png: truncated image")


def test_tiff_tags_are_not_needed() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[270] = "a description that is not needed"
    assert _decoded(Image.new("L", (2, 2), 9), "TIFF", tiffinfo=info).max() == 9


def test_broken_files_print_no_line(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """libtiff writes past Python, and Pillow through its log and as warnings."""
    stripes = Image.fromarray(np.tile(np.uint8([0, 255, 255]), (20, 8))).convert("1")
    faxed = encoded(stripes, "TIFF", compression="group4")
    many = encoded(stripes.convert("L"), "TIFF", compression="tiff_deflate").replace(
        b"\x15\x01\x03\x00\x01\x00\x00\x00\x01\x00", b"\x15\x01\x03\x00\x01\x00\x00\x00\x00\x01"
    )
    longer = encoded(stripes.convert("L"), "TIFF").replace(  # a tag with more data than the file
        b"\x16\x01\x04\x00\x01\x00\x00\x00", b"\x16\x01\x04\x00\x01\x38\x2c\x31"
    )
    assert longer != encoded(stripes.convert("L"), "TIFF")
    pages = encoded(stripes.convert("L"), "MPO", save_all=True, append_images=[stripes.convert("L")])
    for data in (
        faxed[:8] + b"\x01\x0b" * 8 + faxed[24:],
        many,
        longer,
        pages.replace(b"\x02\xb0\x07\x00 \x00", b"\x02\xb0\x07\x00 \x7f"),
    ):
        with contextlib.suppress(UnreadableImage):
            decode_image({"path": "a", "bytes": data})
        image_header(data)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x93NUMPY\x01\0" + b"x" * 99, "NumPy array, which is not read: save it as TIFF, PNG or FITS"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 99, "HDF5 or NetCDF file, which is not read: save its arrays as TIFF"),
        (
            struct.pack("<i", 348) + bytes(340) + b"n+1\0",
            "NIfTI volume, which is not read: save its slices as PNG",
        ),
        (b"PK\3\4" + b"x" * 99, "archive, not an image: unpack it"),
        (b"\x1f\x8b\x08" + b"x" * 99, "archive, not an image: unpack it"),
        (b"\0\0\0\x18ftypmp42" + bytes(50), "video, not an image: take frames from it"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC image, which is not read: convert it to PNG or JPEG"),
        (b"\xff\x0a" + b"x" * 99, "JPEG XL image, which is not read: convert it to PNG or JPEG"),
        (b"data:image/png;base64,iVBORw0K", "text with an image in it, not an image: decode it to a file"),
        (b"iVBORw0KGgoAAAANSUhEUg" * 9, "text with an image in it, not an image: decode it to a file"),
        (b"b'\\x89PNG\\r\\n" * 9, "text with an image in it, not an image: decode it to a file"),
    ],
)
def test_other_files_are_named_and_never_quoted(data: bytes, reason: str) -> None:
    assert _reason(data) == reason


def _jpeg_frame(offset: int, value: bytes) -> bytes:
    data = bytearray(encoded(Image.new("L", (16, 16), 90), "JPEG"))
    place = data.index(b"\xff\xc0") + offset
    data[place : place + len(value)] = value
    return bytes(data)


def test_jpegs_that_are_not_read_are_named() -> None:
    remedy = "which is not read: convert it to PNG or JPEG"
    assert _reason(_jpeg_frame(4, b"\x0c")) == f"JPEG of other than 8 bits, {remedy}"
    assert _reason(_jpeg_frame(1, b"\xc3")) == f"lossless JPEG, {remedy}"
    assert _reason(_jpeg_frame(5, bytes(4))) == "no pixels"


@pytest.mark.parametrize("marker", [True, False])
def test_a_jpeg_in_colours_with_and_without_a_marker(marker: bool) -> None:
    """YCbCr by libjpeg's rule, and RGB where the component numbers say so."""
    colour = Image.new("RGB", (16, 16), (200, 30, 60))
    for options in ({}, {"keep_rgb": True}):
        data = encoded(colour, "JPEG", quality=100, subsampling=0, **options)
        at = data.find(b"\xff\xe0" if b"\xff\xe0" in data[:64] else b"\xff\xee")
        if not marker and at > 0:
            data = data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]
        shown = np.asarray(decode_image({"bytes": data}))[4, 4].astype(int)
        assert np.abs(shown - [200, 30, 60]).max() <= 2, options


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_in_sixteen_bits_loses_no_level_of_eight(kind: str) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    assert (_decoded(Image.fromarray(ramp), kind)[..., 0] == ramp // 257).all()
