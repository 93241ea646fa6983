"""The storage of pixels, from the attributes of the image pixel module: values by hand [PS3.3 C.7.6.3]."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydicom import uid

from domainclip.data.dicom.pixel_format import PixelFormat, read_pixel_format
from domainclip.errors import UnreadableImage
from tests.data.made_dicom import COMPRESSED, MISSING, dataset_in_memory

COLOUR = {
    **{"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    **{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
}


def _format(*given: Any, **attributes: Any) -> PixelFormat:
    return read_pixel_format(dataset_in_memory(*given, **attributes), "a.dcm")


def _reason(*given: Any, **attributes: Any) -> str:
    with pytest.raises(UnreadableImage) as caught:
        _format(*given, **attributes)
    return caught.value.reason


PLAIN = PixelFormat(
    keyword="PixelData",
    syntax=uid.ExplicitVRLittleEndian,
    rows=2,
    columns=3,
    samples=1,
    color_model="MONOCHROME2",
    planar=0,
    allocated=16,
    stored=12,
    shift=0,
    signed=False,
    frames=1,
)


def test_attributes_of_the_standard_leave_no_doubt() -> None:
    assert _format() == PLAIN
    assert _format(PixelRepresentation=1) == replace(PLAIN, signed=True)
    colour = replace(PLAIN, samples=3, color_model="RGB", allocated=8, stored=8)
    assert _format(18, **COLOUR) == colour
    assert _format(18, **{**COLOUR, "PlanarConfiguration": 1}) == replace(colour, planar=1)
    # Of one sample the attribute has no meaning, and of floating-point pixels neither bits nor a sign.
    assert _format(PlanarConfiguration=1) == PLAIN
    absent = dict.fromkeys(["BitsStored", "HighBit", "PixelRepresentation"], MISSING)
    single = replace(PLAIN, keyword="FloatPixelData", allocated=32, stored=32)
    assert _format(24, keyword="FloatPixelData", **{**absent, "PixelRepresentation": 1}) == single
    double = replace(PLAIN, keyword="DoubleFloatPixelData", allocated=64, stored=64)
    assert _format(48, keyword="DoubleFloatPixelData", **absent) == double
    assert _format(0) == PLAIN  # a header without its pixels


@pytest.mark.parametrize(
    ("changes", "bits", "length"),
    [
        ({}, 2 * 3 * 16, 12),
        ({"allocated": 8}, 2 * 3 * 8, 6),
        ({"allocated": 1}, 6, 1),
        ({"allocated": 1, "columns": 4}, 8, 1),
        ({"allocated": 1, "rows": 3}, 9, 2),
        ({"samples": 3, "color_model": "RGB", "allocated": 8}, 144, 18),
        # Two pixels share their chroma: four bytes for two of them.
        ({"samples": 3, "color_model": "YBR_FULL_422", "allocated": 8, "columns": 4}, 128, 16),
        ({"samples": 1, "color_model": "YBR_FULL_422", "allocated": 8}, 48, 6),
        ({"samples": 3, "color_model": "YBR_FULL", "allocated": 8}, 144, 18),
    ],
)
def test_the_length_of_a_frame(changes: dict[str, Any], bits: int, length: int) -> None:
    form = replace(PLAIN, **changes)
    assert (form.frame_bits, form.frame_bytes) == (bits, length)


@pytest.mark.parametrize(
    ("samples", "model", "grey"),
    [(1, "MONOCHROME1", True), (1, "MONOCHROME2", True), (1, "PALETTE COLOR", False), (3, "RGB", False)],
)
def test_grey(samples: int, model: str, grey: bool) -> None:
    assert replace(PLAIN, samples=samples, color_model=model).is_grey is grey


def test_the_size_of_an_image() -> None:
    size = "the attribute Rows is no number from 1 to 65535"
    assert _format(2 * 65535, Rows=65535, Columns=1).rows == 65535
    assert _format(2 * 65535, Rows=1, Columns=65535).columns == 65535
    assert _format(2, Rows=1, Columns=1).frame_bytes == 2
    assert _reason(Rows=("UL", 65536)) == size
    assert _reason(Rows=0) == size
    assert _reason(Rows=("SS", -1)) == size
    assert _reason(Rows=MISSING) == "the attribute Rows is missing"
    assert _reason(Columns=MISSING) == "the attribute Columns is missing"


@pytest.mark.parametrize(
    ("text", "samples", "model", "doubt"),
    [
        ("MONOCHROME1", 1, "MONOCHROME1", ()),
        ("PALETTE COLOR", 1, "PALETTE COLOR", ()),
        *[(model, 3, model, ()) for model in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")],
        (
            ("LO", "monochrome_2"),
            1,
            "MONOCHROME2",
            ("PhotometricInterpretation (not spelt as in the standard)",),
        ),
        (("LO", "YBR-FULL"), 3, "YBR_FULL", ("PhotometricInterpretation (not spelt as in the standard)",)),
        (["RGB", "RGB"], 3, "RGB", ("PhotometricInterpretation (not spelt as in the standard)",)),
        # A number of samples that contradicts the colour model.
        ("RGB", 1, "MONOCHROME2", ()),
        ("MONOCHROME1", 3, "RGB", ()),
        ("PALETTE COLOR", 3, "RGB", ()),
    ],
)
def test_colour_models(text: Any, samples: int, model: str, doubt: tuple[str, ...]) -> None:
    form = _format(36, PhotometricInterpretation=text, SamplesPerPixel=samples, PlanarConfiguration=0)
    assert (form.color_model, form.samples, form.doubts) == (model, samples, doubt)


def test_colour_models_that_are_not_read() -> None:
    reason = "a colour model (PhotometricInterpretation) that is not read"
    for model in ("ARGB", "CMYK", "HSV", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422"):
        assert _reason(PhotometricInterpretation=model) == f"{reason} ({model})"
    assert _reason(PhotometricInterpretation="DOE") == reason  # a text of the file is not quoted
    assert _reason(PhotometricInterpretation=MISSING) == "the attribute PhotometricInterpretation is missing"


def test_the_number_of_samples_follows_from_the_colour_model() -> None:
    for model, samples in (("RGB", 3), ("YBR_ICT", 3), ("MONOCHROME1", 1), ("PALETTE COLOR", 1)):
        form = _format(36, PhotometricInterpretation=model, SamplesPerPixel=MISSING, PlanarConfiguration=0)
        assert (form.samples, form.doubts) == (samples, ("SamplesPerPixel (missing)",))
        form = _format(36, PhotometricInterpretation=model, SamplesPerPixel=4, PlanarConfiguration=0)
        assert (form.samples, form.doubts) == (samples, ("SamplesPerPixel (not allowed)",))


def test_flags_other_than_0_and_1() -> None:
    form = _format(18, **{**COLOUR, "PlanarConfiguration": 2, "PixelRepresentation": 2})
    assert (form.planar, form.signed) == (0, False)
    assert form.doubts == ("PlanarConfiguration (not allowed)", "PixelRepresentation (not allowed)")
    form = _format(18, **{**COLOUR, "PlanarConfiguration": MISSING, "PixelRepresentation": MISSING})
    assert (form.planar, form.signed) == (0, False)
    assert form.doubts == ("PlanarConfiguration (missing)", "PixelRepresentation (missing)")


NO_STORED, BAD_STORED = "BitsStored (missing)", "BitsStored (not allowed)"
NO_HIGH, BAD_HIGH = "HighBit (missing)", "HighBit (not allowed)"
NO_ALLOCATED = "BitsAllocated (missing)"
FEW, MANY = "BitsAllocated (fewer than BitsStored)", "BitsStored (more than BitsAllocated)"


@pytest.mark.parametrize(
    ("allocated", "stored", "high", "sample_bytes", "expected", "doubts"),
    [
        (64, 64, 63, 8, (64, 64, 0), []),
        (1, 1, 0, 1, (1, 1, 0), []),
        (1, 1, MISSING, 1, (1, 1, 0), []),
        (8, 1, 0, 1, (8, 1, 0), []),
        # HighBit is the highest of the stored bits: above BitsStored - 1, the values are left-justified.
        (16, 12, 15, 2, (16, 12, 4), []),
        (16, 12, 13, 2, (16, 12, 2), []),
        (16, 12, 10, 2, (16, 12, 0), [BAD_HIGH]),
        (16, 12, 16, 2, (16, 12, 0), [BAD_HIGH]),
        (16, 12, MISSING, 2, (16, 12, 0), [NO_HIGH]),
        # Without BitsStored, HighBit has the same information.
        (16, MISSING, 11, 2, (16, 12, 0), [NO_STORED]),
        (16, 0, 11, 2, (16, 12, 0), [BAD_STORED]),
        (16, 65, 11, 2, (16, 12, 0), [BAD_STORED]),
        (8, MISSING, 0, 1, (8, 1, 0), [NO_STORED]),
        (64, MISSING, 63, 8, (64, 64, 0), [NO_STORED]),
        (16, MISSING, 64, 2, (16, 16, 0), [NO_STORED, BAD_HIGH]),
        (8, MISSING, 63, 1, (8, 8, 0), [NO_STORED, MANY, BAD_HIGH]),
        (16, MISSING, ("SS", -1), 2, (16, 16, 0), [NO_STORED, BAD_HIGH]),
        (16, MISSING, MISSING, 2, (16, 16, 0), [NO_STORED, NO_HIGH]),
        # Without BitsAllocated, the length of the pixels; where they are compressed, the least that holds them.
        (MISSING, 12, 11, 2, (16, 12, 0), [NO_ALLOCATED]),
        (MISSING, 12, 11, 4, (32, 12, 0), [NO_ALLOCATED]),
        (MISSING, 12, 11, 3, (16, 12, 0), [NO_ALLOCATED]),
        (MISSING, 12, 11, 0, (16, 12, 0), [NO_ALLOCATED]),
        (MISSING, 12, 11, None, (16, 12, 0), [NO_ALLOCATED]),
        (MISSING, 1, 0, None, (1, 1, 0), [NO_ALLOCATED]),
        (MISSING, 8, 7, None, (8, 8, 0), [NO_ALLOCATED]),
        (MISSING, 17, 16, None, (32, 17, 0), [NO_ALLOCATED]),
        (MISSING, MISSING, MISSING, 1, (8, 8, 0), [NO_STORED, NO_ALLOCATED, NO_HIGH]),
        # More bits stored than allocated: the length decides which of them is wrong.
        (8, 12, 11, 2, (16, 12, 0), [FEW]),
        (8, 16, 15, 2, (16, 16, 0), [FEW]),
        (8, 17, 7, 2, (8, 8, 0), [MANY]),
        (8, 12, 7, 1, (8, 8, 0), [MANY]),
        (8, 12, 7, 3, (8, 8, 0), [MANY]),
        (8, 12, 7, None, (8, 8, 0), [MANY]),
    ],
)
def test_bits(
    allocated: Any,
    stored: Any,
    high: Any,
    sample_bytes: int | None,
    expected: tuple[int, int, int],
    doubts: list[str],
) -> None:
    bits = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": high}
    if sample_bytes is None:
        form = _format(COMPRESSED, uid.RLELossless, **bits)
    else:
        form = _format(6 * sample_bytes, **bits)
    assert (form.allocated, form.stored, form.shift) == expected
    assert list(form.doubts) == doubts


def test_bits_that_nothing_replaces() -> None:
    absent = dict.fromkeys(["BitsAllocated", "BitsStored", "HighBit"], MISSING)
    assert _reason(COMPRESSED, uid.RLELossless, **absent) == "the attribute BitsAllocated is missing"
    assert _reason(BitsAllocated=12) == "BitsAllocated is none of 1, 8, 16, 32 and 64"


@pytest.mark.parametrize(
    ("length", "declared", "frames", "doubts"),
    [
        (36, 3, 3, []),
        (24, 3, 2, ["NumberOfFrames (more than the pixel data have)"]),
        (35, 3, 2, ["NumberOfFrames (more than the pixel data have)"]),
        (48, 3, 3, []),
        (36, MISSING, 1, []),
        (36, "two", 3, ["NumberOfFrames (not allowed)"]),
        (36, 0, 3, ["NumberOfFrames (not allowed)"]),
        (2, 0, 1, ["NumberOfFrames (not allowed)"]),
        (0, 0, 1, ["NumberOfFrames (not allowed)"]),
        (0, 3, 3, []),
        (2, 3, 3, []),  # not even one: refused where the pixels are decoded
        (0, 2**31 - 1, 2**31 - 1, []),
        (36, 2**31, 3, ["NumberOfFrames (not allowed)"]),
    ],
)
def test_the_number_of_frames(length: int, declared: Any, frames: int, doubts: list[str]) -> None:
    value = declared if declared is MISSING else ("LO", str(declared))
    form = _format(length, NumberOfFrames=value)
    assert (form.frames, list(form.doubts)) == (frames, doubts)


def test_frames_of_one_bit_need_not_end_with_a_byte() -> None:
    bits = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "Rows": 3, "NumberOfFrames": 9}
    form = _format(4, **bits)  # 32 bits, 9 of a frame
    assert form.frames == 3


def test_transfer_syntaxes() -> None:
    form = _format(12, "")
    assert form.syntax == uid.ExplicitVRLittleEndian
    assert form.doubts == ("TransferSyntaxUID (missing)",)
    assert _reason(COMPRESSED, "") == "the attribute TransferSyntaxUID is missing"
    assert _reason(COMPRESSED) == "the attribute TransferSyntaxUID contradicts the pixel data"
    form = _format(12, uid.JPEGBaseline8Bit)
    assert form.syntax == uid.ExplicitVRLittleEndian
    assert form.doubts == ("TransferSyntaxUID (contradicts the pixel data)",)
