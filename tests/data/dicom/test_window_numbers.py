"""The numbers of windows: presets, the rule for 8 bits, and windows that show no pixel of their file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from domainclip.data.dicom import rendering, windowing
from domainclip.data.dicom.display import Display, Window
from domainclip.data.dicom.lookup_tables import LookupTable
from domainclip.data.dicom.pixel_format import PixelFormat, read_pixel_format
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import table_item

HU = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0}


def _grey(path: Path, **place: Any) -> list[int]:
    image = rendering.render_image(path.read_bytes(), str(path), 10**9, **place)
    return [int(value) for value in np.asarray(image)[0, :, 0]]


# The values that turn black and white: (centre - 0.5) ∓ (width - 1) / 2 [DICOM PS3.3 C.11.2.1.2.1].
@pytest.mark.parametrize(
    ("name", "window", "black", "white"),
    [
        ("abdomen", "50/400", -150, 249),
        ("bone", "480/2500", -770, 1729),
        ("brain", "40/80", 0, 79),
        ("liver", "90/150", 15, 164),
        ("lung", "-600/1500", -1350, 149),
        ("mediastinum", "50/350", -125, 224),
        ("soft_tissue", "40/400", -160, 239),
        ("stroke", "40/40", 20, 59),
        ("subdural", "100/300", -50, 249),
        ("wide", "100/2500", -1150, 1349),
    ],
)
def test_a_preset_spans_these_hounsfield_units(
    tmp_path: Path, name: str, window: str, black: int, white: int
) -> None:
    values = np.array([[black - 1, black, black + 12, white - 12, white, white + 1]], np.int16)
    file = dicom_file(tmp_path / "a", values, **HU, BitsStored=16, HighBit=15)
    grey = _grey(file, window=name)
    assert grey[:2] == [0, 0]
    assert grey[4:] == [255, 255]
    # Twelve units are 255·12/(white - black) grey levels, from both ends.
    levels = 255 * 12 / (white - black)
    assert grey[2] == pytest.approx(levels, abs=0.5001)
    assert grey[3] == pytest.approx(255 - levels, abs=0.5001)
    steps = rendering.describe_rendering(file.read_bytes(), "a", 10**9, window=name)
    assert steps == f"rescale 1 0; window {window} (preset {name}); 8 bit"
    assert len(windowing.PRESETS) == 10


def test_the_only_table_of_a_file_has_no_number(tmp_path: Path) -> None:
    file = dicom_file(
        tmp_path / "a", np.array([[0, 1]], np.uint16), VOILUTSequence=[table_item(0, 16, [0, 65535])]
    )
    assert rendering.describe_rendering(file.read_bytes(), "a", 10**9) == "VOI table; 8 bit"


@pytest.mark.parametrize(
    ("bits", "values", "grey"),
    [
        (8, [10, 100, 200], [10, 100, 200]),  # 8 bits are shown as they are
        (8, [0, 1, 255], [0, 1, 255]),
        (8, [0, 100, 200], [0, 100, 200]),
        (8, [10, 100, 255], [10, 100, 255]),
        (7, [0, 1, 127], [0, 2, 255]),  # so are fewer, over their full range
        (9, [10, 100, 200], [0, 121, 255]),  # of more bits, the range of the pixels
        (12, [0, 100, 200], [0, 128, 255]),
    ],
)
def test_up_to_8_bits_are_not_stretched(
    tmp_path: Path, bits: int, values: list[int], grey: list[int]
) -> None:
    file = dicom_file(tmp_path / "a", np.array([values], np.uint16), BitsStored=bits, HighBit=bits - 1)
    assert _grey(file) == grey


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, 0.0, 100.0], [0.0, 255 / 101, 255.0]),  # a negative value is not one of 8 bits
        ([0.0, 128.0, 256.0], [0.0, 127.5, 255.0]),  # neither is 256
        ([0.0, 128.0, 255.0], [0.0, 128.0, 255.0]),
        ([7.0, 7.0, 7.0], [7.0, 7.0, 7.0]),
        ([300.0, 300.0, 300.0], [0.0, 0.0, 0.0]),  # one value has no range
    ],
)
def test_the_range_of_the_measured_pixels(
    form: PixelFormat, values: list[float], expected: list[float]
) -> None:
    pixels = np.array([[*values, 900.0, np.nan]])
    padding = np.array([[False] * len(values) + [True, False]])
    grey, _ = windowing.apply_window(pixels, replace(form, stored=8), Display(), 0, padding)
    assert grey[0, : len(values)] == pytest.approx(expected)


def test_an_image_of_padding_is_black(form: PixelFormat) -> None:
    grey, description = windowing.apply_window(
        np.full((1, 3), 9.0), form, Display(), 0, np.full((1, 3), True)
    )
    assert (grey.tolist(), description) == ([[0.0, 0.0, 0.0]], "nothing but padding")


@pytest.fixture
def form(tmp_path: Path) -> PixelFormat:
    """16 unsigned bits allocated, 12 stored."""
    file = dicom_file(tmp_path / "form", np.zeros((1, 4), np.uint16))
    return read_pixel_format(pydicom.dcmread(file), "form")


@pytest.mark.parametrize(
    ("centre", "width", "outside"),
    [
        (-10, 20, False),  # ends at 0, the lowest value
        (-10.1, 20, True),
        (65545, 20, False),  # begins at 65535, the highest of 16 bits
        (65545.1, 20, True),
        (40, 400, False),
    ],
)
def test_a_window_beyond_all_values_is_not_used(
    form: PixelFormat, centre: float, width: float, outside: bool
) -> None:
    window = Window(centre, width, "LINEAR", "")
    assert windowing.is_outside(window, form, Display()) is outside
    assert not windowing.is_outside(replace(window, function="SIGMOID"), form, Display())  # it has no ends
    assert not windowing.is_outside(window, replace(form, keyword="FloatPixelData"), Display())


@pytest.mark.parametrize(
    ("centre", "outside"),
    [(-32778, False), (-32778.1, True), (32777, False), (32777.1, True)],
)
def test_signed_values_reach_below_zero(form: PixelFormat, centre: float, outside: bool) -> None:
    window = Window(centre, 20, "LINEAR", "")
    assert windowing.is_outside(window, replace(form, signed=True), Display()) is outside


@pytest.mark.parametrize(
    ("centre", "outside"),
    [(90, False), (89, True), (-130980, False), (-130981, True)],
)
def test_the_ends_are_those_after_the_rescale(form: PixelFormat, centre: float, outside: bool) -> None:
    """-2·v + 100 of 0 … 65535 is -130970 … 100."""
    window = Window(100 + (100 - centre) if centre > 0 else centre, 20, "LINEAR", "")
    assert windowing.is_outside(window, form, Display(rescale=(-2.0, 100.0))) is outside


@pytest.mark.parametrize(("centre", "outside"), [(-65546, False), (-65547, True)])
def test_the_lowest_signed_value_is_rescaled_too(form: PixelFormat, centre: float, outside: bool) -> None:
    """2·(-32768) is -65536."""
    window = Window(centre, 20, "LINEAR", "")
    assert windowing.is_outside(window, replace(form, signed=True), Display(rescale=(2.0, 0.0))) is outside


def test_a_modality_table_may_give_any_value(form: PixelFormat) -> None:
    table = LookupTable(np.array([0.0, 1.0]), 0, 1.0)
    assert not windowing.is_outside(Window(-999, 2, "LINEAR", ""), form, Display(modality_table=table))
