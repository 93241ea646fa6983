"""Stored values before any window: every bit by hand [PS3.3 C.7.6.3.1, PS3.5 §8]."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate

from domainclip.data.dicom import stored_values
from domainclip.data.dicom.codestream import Codestream
from domainclip.data.dicom.pixel_format import PixelFormat, read_pixel_format
from domainclip.data.dicom.stored_values import read_stored_values
from domainclip.data.dicom.transfer_syntaxes import DEFLATED_FRAME
from domainclip.errors import UnreadableImage
from tests.data.made_dicom import COMPRESSED, JPEG_12, MISSING, dataset_in_memory

LITTLE, BIG = uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian


def _read(dataset: FileDataset, frame: int = 0) -> np.ndarray:
    return read_stored_values(dataset, read_pixel_format(dataset, "a.dcm"), "a.dcm", frame)


def _reason(dataset: FileDataset, frame: int = 0) -> str:
    with pytest.raises(UnreadableImage) as caught:
        _read(dataset, frame)
    return caught.value.reason


def _row(
    values: list[int], kind: str = "<u2", syntax: str = LITTLE, keyword: str = "PixelData", **keys: Any
) -> FileDataset:
    """An image of one row."""
    data = np.array(values, kind).tobytes()
    size = {"Rows": 1, "Columns": len(values), "BitsAllocated": 8 * np.dtype(kind).itemsize}
    return dataset_in_memory(data, syntax, keyword, **{**size, **keys})


def _bits(stored: int, high: int, signed: bool = False) -> dict[str, int]:
    return {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}


@pytest.mark.parametrize(
    ("words", "kind", "bits", "values"),
    [
        # The bits above the stored ones hold overlays, or nothing.
        ([0xF123, 0x0FFF, 0], "<u2", _bits(12, 11), [0x123, 0xFFF, 0]),
        ([0x0FFF, 0x0800, 0x07FF, 0xF001], "<u2", _bits(12, 11, True), [-1, -2048, 2047, 1]),
        ([0xFFFF, 0x8000, 0x1234], "<u2", _bits(16, 15), [65535, 32768, 0x1234]),
        ([0xFFFF, 0x8000, 0x7FFF], "<u2", _bits(16, 15, True), [-1, -32768, 32767]),
        ([0xC1, 0x3F], "u1", _bits(6, 5), [1, 63]),
        ([0xFFF00001, 0x000FFFFF], "<u4", _bits(20, 19), [1, 0xFFFFF]),
        # Left-justified, with and without bits below.
        ([0x1235, 0xFFFF, 0], "<u2", _bits(12, 15), [0x123, 0xFFF, 0]),
        ([0xFFF5, 0x8000, 0x7FFF], "<u2", _bits(12, 15, True), [-1, -2048, 2047]),
        ([0xC48C, 0xFFFC], "<u2", _bits(12, 13), [0x123, 0xFFF]),
        ([0x0120, 0x0450], "<u2", _bits(12, 15), [0x12, 0x45]),
        ([0x0FFF, 0x1000], "<u2", _bits(12, 15), [0xFF, 0x100]),
        # A HighBit that the values contradict: nothing above the lowest 12 bits, something below the fifth.
        ([0x0123, 0x0450], "<u2", _bits(12, 15), [0x123, 0x450]),
        ([0x0FFF, 0x0801], "<u2", _bits(12, 15, True), [-1, -2047]),
    ],
)
def test_the_stored_bits(words: list[int], kind: str, bits: dict[str, int], values: list[int]) -> None:
    assert _read(_row(words, kind, **bits)).tolist() == [values]


def test_big_endian() -> None:
    assert _read(_row([0x1235, 0xFFFF], ">u2", BIG, **_bits(12, 15))).tolist() == [[0x123, 0xFFF]]
    values = _read(_row([0xF123], ">u2", BIG, **_bits(12, 11)))
    assert values.tolist() == [[0x123]]
    assert values.dtype.isnative


def test_numbers_of_floating_point_are_unchanged() -> None:
    no_bits = {"BitsStored": MISSING, "HighBit": MISSING}
    row = _row([1, -2], "<f4", LITTLE, "FloatPixelData", **no_bits)
    assert _read(row).tolist() == [[1.0, -2.0]]


def test_bits_that_a_stream_does_not_have() -> None:
    """Left-justified by 4 of 16 bits, as the header says, in a stream of 8."""
    form = replace(read_pixel_format(_row([0], **_bits(12, 15)), "a"), allocated=8, stored=6)
    values = np.array([[0xFF, 0x41]], np.uint8)
    assert stored_values._extract_bits(values, form).tolist() == values.tolist()
    assert stored_values._extract_bits(values, replace(form, shift=2)).tolist() == [[0x3F, 0x10]]
    assert stored_values._extract_bits(values, replace(form, shift=0)).tolist() == [[0x3F, 0x01]]
    assert stored_values._extract_bits(values, replace(form, stored=7, shift=0)).tolist() == [[0x7F, 0x41]]


def test_one_frame_of_several() -> None:
    film = dataset_in_memory(np.arange(18, dtype="<u2").tobytes(), NumberOfFrames=3)
    assert _read(film, 1).tolist() == [[6, 7, 8], [9, 10, 11]]
    assert _read(film, 2).tolist() == [[12, 13, 14], [15, 16, 17]]


def test_pixel_data_that_end_early() -> None:
    assert _read(dataset_in_memory(12)).shape == (2, 3)
    assert _reason(dataset_in_memory(11)) == "pixel data cut off"
    assert _reason(dataset_in_memory(0)) == "PixelData without bytes"
    without = dataset_in_memory(encapsulate([bytes(64)]), uid.RLELossless)
    assert _reason(without, 1) == "compressed pixel data without the frame, or cut off"
    assert (
        _reason(dataset_in_memory(12, "1.2.3"))
        == "unknown transfer syntax (not a registered transfer syntax)"
    )


def _colour(values: list[int], model: str, kind: str = "u1", **keys: Any) -> FileDataset:
    size = np.dtype(kind).itemsize * 8
    about = {"SamplesPerPixel": 3, "PhotometricInterpretation": model, "PlanarConfiguration": 0}
    bits = {"BitsAllocated": size, "BitsStored": size, "HighBit": size - 1}
    data = np.array(values, kind).tobytes()
    return dataset_in_memory(data, **{"Rows": 1, "Columns": 2, **about, **bits, **keys})


RED, GREEN = [255, 0, 0], [0, 255, 0]


@pytest.mark.filterwarnings("ignore:The number of bytes of pixel data is sufficient")
def test_colour_by_pixel_and_by_plane() -> None:
    assert _read(_colour([*RED, *GREEN], "RGB")).tolist() == [[RED, GREEN]]
    planes = [255, 0, 0, 255, 0, 0]
    assert _read(_colour(planes, "RGB", PlanarConfiguration=1)).tolist() == [[RED, GREEN]]
    # More bytes than a frame has do not make them luminance and chroma.
    assert _read(_colour([*RED, *GREEN] * 2, "RGB")).tolist() == [[RED, GREEN]]
    wide = [65535, 0, 1, 2, 3, 65534]
    assert _read(_colour(wide, "RGB", "<u2")).tolist() == [[wide[:3], wide[3:]]]


def test_chroma_of_two_pixels_or_of_each() -> None:
    """YBR_FULL_422 has Y Y Cb Cr for two pixels; files of 3 bytes a pixel state it too."""
    grey = [[[10] * 3, [200] * 3]]
    assert _read(_colour([10, 200, 128, 128], "YBR_FULL_422")).tolist() == grey
    assert _read(_colour([10, 128, 128, 200, 128, 128], "YBR_FULL_422")).tolist() == grey
    # Two frames: 8 bytes are two of the short form, 12 are two of the long one.
    short = _colour([0, 0, 128, 128, 10, 200, 128, 128], "YBR_FULL_422", NumberOfFrames=2)
    assert _read(short, 1).tolist() == grey
    long = [0, 128, 128, 0, 128, 128, 10, 128, 128, 200, 128, 128]
    assert _read(_colour(long, "YBR_FULL_422", NumberOfFrames=2), 1).tolist() == grey


def test_chroma_of_two_pixels_in_a_deflated_frame() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(bytes([10, 200, 128, 128])) + packer.flush()
    dataset = _colour([0], "YBR_FULL_422")
    dataset.PixelData = encapsulate([packed])
    dataset.file_meta.TransferSyntaxUID = DEFLATED_FRAME
    assert _read(dataset).tolist() == [[[10] * 3, [200] * 3]]


def _jpeg(mode: str = "RGB", **options: Any) -> bytes:
    """8 × 8 pixels of one colour, without the markers of JFIF and Adobe."""
    stream = io.BytesIO()
    Image.new(mode, (8, 8), (200, 90, 30) if mode == "RGB" else 90).save(
        stream, "JPEG", quality=95, **options
    )
    data = stream.getvalue()
    while data[2:4] in (b"\xff\xe0", b"\xff\xee"):
        data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
    return data


def _of_jpeg(data: bytes, model: str = "RGB", **keys: Any) -> FileDataset:
    dataset = _colour([0], model, **{"Rows": 8, "Columns": 8, **keys})
    dataset.PixelData = encapsulate([data])
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return dataset


def test_components_of_a_jpeg_without_usual_names_are_what_the_header_says() -> None:
    """Numbered 0, 1, 2 and coded alike: RGB or luminance and chroma by PhotometricInterpretation."""
    data = _jpeg(keep_rgb=True, subsampling=0)
    for name, number in zip(b"RGB", range(3), strict=True):
        for place in (bytes([name, 0x11, 0]), bytes([name, 0])):  # in the header of the frame and of the scan
            data = data.replace(place, bytes([number, *place[1:]]))
    rgb = _read(_of_jpeg(data))[4, 4].astype(int)
    assert np.abs(rgb - [200, 90, 30]).max() <= 2
    # The same three numbers as Y, Cb and Cr: R = 200 + 1.402 · (30 - 128) = 62.6, B = 200 + 1.772 · (90 - 128) = 132.7.
    ycc = _read(_of_jpeg(data, "YBR_FULL"))[4, 4].astype(int)
    assert np.abs(ycc - [63, 255, 133]).max() <= 4


def test_a_jpeg_that_is_broken_or_of_another_size() -> None:
    scan = _jpeg().index(b"\xff\xda")
    reason = "JPEG Baseline (Process 1) data that no installed decoder can read"
    assert _reason(_of_jpeg(_jpeg()[:scan])) == reason
    assert _reason(_of_jpeg(_jpeg(), Rows=7)) == "compressed data of more pixels than its header says"
    assert _reason(_of_jpeg(_jpeg(), Rows=9)) == "compressed data of another size than Rows and Columns"


def test_bits_of_a_jpeg_that_the_header_denies() -> None:
    """12 bits in the stream and 8 in the header: the decoder is chosen by the stream."""
    keys = {"Rows": 12, "Columns": 16}
    whole = dataset_in_memory(encapsulate([JPEG_12]), uid.JPEGExtended12Bit, **keys)
    values = _read(whole)
    assert values[11, 15] == 3422  # 11 · 37 + 15 · 201
    denied = dataset_in_memory(encapsulate([JPEG_12]), uid.JPEGExtended12Bit, **keys, **_bits(8, 7))
    assert _read(denied).tolist() == (values & 0xFF).tolist()


def test_luminance_and_chroma_of_more_than_8_bits() -> None:
    """By hand: R = Y + 1.402 Cr, G = Y - 0.344136 Cb - 0.714136 Cr, B = Y + 1.772 Cb, about half the range."""
    values = [40000, 32868, 32718, 65535, 65535, 65535]
    # Cb = 100, Cr = -50: R 39929.9, G 40001.29, B 40177.2. Then Cb = Cr = 32767: G 65535 - 34676.4 = 30858.6.
    expected = [[39930, 40001, 40177], [65535, 30859, 65535]]
    assert _read(_colour(values, "YBR_FULL", "<u2")).tolist() == [expected]
    dark = [0, 0, 0, 2048, 2148, 1998]
    twelve = {"BitsStored": 12, "HighBit": 11}
    # Half of 12 bits is 2048. First Cb = Cr = -2048: G = 704.8 + 1462.6 = 2167.3; then Cb = 100, Cr = -50.
    assert _read(_colour(dark, "YBR_FULL", "<u2", **twelve)).tolist() == [[[0, 2167, 0], [1978, 2049, 2225]]]
    # Cb = Cr = 2047: G = 4095 - 704.4 - 1461.8 = 1928.7.
    bright = [4095, 4095, 4095, 4095, 2048, 2048]
    assert _read(_colour(bright, "YBR_FULL", "<u2", **twelve)).tolist() == [[[4095, 1929, 4095], [4095] * 3]]


FORM = PixelFormat(
    keyword="PixelData",
    syntax=uid.JPEGLossless,
    rows=2,
    columns=3,
    samples=1,
    color_model="MONOCHROME2",
    planar=0,
    allocated=16,
    stored=12,
    shift=0,
    signed=False,
    frames=4,
)


@pytest.mark.parametrize(
    ("rows", "columns", "components", "reason"),
    [
        (2, 3, (1,), ""),
        (2, 3, (1, 2, 3), ""),
        (0, 0, (), ""),  # no header that can be read
        (2, 4, (1,), "compressed data of more pixels than its header says"),
        (3, 2, (1,), "compressed data of another size than Rows and Columns"),
        (1, 3, (1,), "compressed data of another size than Rows and Columns"),
        (2, 3, (1, 2), "compressed data of neither 1 nor 3 samples a pixel"),
        (2, 3, (1, 2, 3, 4), "compressed data of neither 1 nor 3 samples a pixel"),
    ],
)
def test_a_stream_of_another_size(rows: int, columns: int, components: tuple[int, ...], reason: str) -> None:
    stream = Codestream("lossless", 12, rows, columns, components)
    if not reason:
        stored_values._check_stream(stream, FORM, "a.dcm")
        return
    with pytest.raises(UnreadableImage) as caught:
        stored_values._check_stream(stream, FORM, "a.dcm")
    assert caught.value.reason == reason


GREY, COLOUR = {"samples": 1}, {"samples": 3, "color_model": "RGB"}


@pytest.mark.parametrize(
    ("header", "stream", "changes"),
    [
        (GREY, Codestream(), {}),
        # RLE has a segment for each byte of a pixel.
        (GREY, Codestream("RLE", segments=2), {"allocated": 16, "stored": 12}),
        (GREY, Codestream("RLE", segments=1), {"allocated": 8, "stored": 8}),
        ({"allocated": 8, "stored": 8}, Codestream("RLE", segments=2), {"allocated": 16, "stored": 8}),
        (COLOUR, Codestream("RLE", segments=3), {"allocated": 8, "stored": 8}),
        (COLOUR, Codestream("RLE", segments=6), {"allocated": 16, "stored": 12}),
        (COLOUR, Codestream("RLE", segments=2), {}),
        # The bits of the stream, in the least word that holds them.
        (GREY, Codestream("JPEG-LS", 8, 2, 3, (1,)), {"allocated": 8, "stored": 8}),
        (GREY, Codestream("JPEG-LS", 9, 2, 3, (1,)), {"allocated": 16, "stored": 12}),
        (GREY, Codestream("JPEG-LS", 16, 2, 3, (1,)), {"allocated": 16, "stored": 12}),
        (GREY, Codestream("JPEG 2000", 17, 2, 3, (0,)), {"allocated": 32, "stored": 12}),
        (GREY, Codestream("JPEG 2000", 32, 2, 3, (0,)), {"allocated": 32, "stored": 12}),
        (GREY, Codestream("JPEG 2000", 33, 2, 3, (0,)), {"allocated": 64, "stored": 12}),
        (GREY, Codestream("lossless", 14, 2, 3, (1,)), {"allocated": 16, "stored": 14}),
        # Its components, which the header may contradict.
        (COLOUR, Codestream("JPEG-LS", 16, 2, 3, (1,)), {"samples": 1, "color_model": "MONOCHROME2"}),
        (GREY, Codestream("lossless", 12, 2, 3, (1, 2, 3)), {"samples": 3, "color_model": "RGB"}),
        (GREY, Codestream("baseline", 12, 2, 3, (1, 2, 3)), {"samples": 3, "color_model": "YBR_FULL"}),
        ({**COLOUR, "color_model": "YBR_RCT"}, Codestream("JPEG 2000", 16, 2, 3, (0, 1, 2)), {}),
        (COLOUR, Codestream("JPEG-LS", 16, 2, 3, ()), {}),
        ({"color_model": "PALETTE COLOR"}, Codestream("JPEG-LS", 16, 2, 3, (1,)), {}),
    ],
)
def test_what_a_stream_says_of_its_pixels(
    header: dict[str, Any], stream: Codestream, changes: dict[str, Any]
) -> None:
    form = replace(FORM, **header)
    assert stored_values._of_stream(form, stream) == replace(form, **changes)


def test_twelve_bits_of_a_jpeg_are_decoded_under_another_syntax() -> None:
    extended, baseline = uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit
    assert stored_values._plugin_syntax(extended, 9) == uid.JPEGLossless
    assert stored_values._plugin_syntax(extended, 8) == extended
    assert stored_values._plugin_syntax(baseline, 12) == baseline


def test_options_of_the_decoders() -> None:
    expected = {
        **{"rows": 2, "columns": 3, "number_of_frames": 4, "samples_per_pixel": 1},
        **{"photometric_interpretation": "MONOCHROME2", "planar_configuration": 0},
        **{"bits_allocated": 16, "bits_stored": 12, "pixel_representation": 0, "pixel_keyword": "PixelData"},
        **{"allow_excess_frames": True, "as_rgb": False},
    }
    assert stored_values._options(FORM) == expected
    shifted = replace(FORM, shift=4, signed=True)
    assert stored_values._options(shifted) == {**expected, "bits_stored": 16, "pixel_representation": 1}
    small = {"bits_allocated": 8, "bits_stored": 8, "as_rgb": True}
    assert stored_values._options(replace(FORM, allocated=8, stored=8)) == {**expected, **small}


@pytest.mark.parametrize(("data", "padded"), [(b"abc", b"abc\0"), (b"abcd", b"abcd"), (b"", b"")])
def test_a_frame_as_an_item(data: bytes, padded: bytes) -> None:
    """An empty table of offsets, then one item of even length [PS3.5 A.4]."""
    length = bytes([len(padded), 0, 0, 0])
    expected = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + length + padded
    assert stored_values._as_item(data) == expected


def test_no_more_is_inflated_than_a_frame_holds() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(b"12345") + packer.flush()
    assert stored_values._inflate(packed, 3, "a.dcm") == b"123"
    with pytest.raises(UnreadableImage) as caught:
        stored_values._inflate(b"\xff\xff", 3, "a.dcm")
    assert caught.value.reason == "a deflated frame that is broken"


def test_a_stream_that_is_none() -> None:
    for syntax, name in (
        (uid.JPEGLSLossless, "JPEG-LS Lossless Image Compression"),
        (uid.JPEG2000, "JPEG 2000 Image Compression"),
    ):
        reason = _reason(dataset_in_memory(COMPRESSED, syntax))
        assert reason == f"{name} data that no installed decoder can read"
