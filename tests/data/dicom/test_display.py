"""Display attributes at their bounds: widths, rescale, and signs of padding."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from domainclip.data.dicom.display import Display, read_display


def _read(**attributes: Any) -> Display:
    dataset = Dataset()
    for keyword, value in attributes.items():
        if isinstance(value, str) and keyword.startswith(("Rescale", "Window")):
            dataset.add_new(keyword, "LO", value)  # a text that is no number
        else:
            setattr(dataset, keyword, value)
    return read_display(dataset)


def test_a_file_without_display_attributes() -> None:
    assert _read() == Display()


@pytest.mark.parametrize(
    ("function", "width", "usable"),
    [
        ("LINEAR", 1, True),
        ("LINEAR", 1.5, True),
        ("LINEAR", 0.99, False),
        ("LINEAR_EXACT", 0.25, True),
        ("LINEAR_EXACT", 0, False),
        ("SIGMOID", 0.25, True),
        ("SIGMOID", -1, False),
    ],
)
def test_the_narrowest_window_of_each_function(function: str, width: float, usable: bool) -> None:
    found = _read(WindowCenter=10, WindowWidth=width, VOILUTFunction=function)
    (window,) = found.windows
    assert (window is not None) is usable
    least = 1 if function == "LINEAR" else 0
    assert found.doubts == (() if usable else (f"WindowWidth (below {least})",))
    if window is not None:
        assert (window.centre, window.width, window.function, window.origin) == (10, width, function, "")


def test_windows_with_fewer_widths_or_fewer_centres() -> None:
    wide = _read(WindowCenter=[10, 20], WindowWidth=[5])
    assert [str(window) for window in wide.windows] == ["window 10/5"]
    assert wide.doubts == ("WindowWidth (fewer values)",)
    narrow = _read(WindowCenter=[10, 20], WindowWidth=[5, 6, 7])
    assert [str(window) for window in narrow.windows] == ["window 10/5 (1 of 2)", "window 20/6 (2 of 2)"]
    assert narrow.doubts == ("WindowCenter (fewer values)",)
    assert narrow.explanations == ("", "")


@pytest.mark.parametrize(
    ("attributes", "rescale"),
    [
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, (2.0, -1024.0)),
        ({"RescaleSlope": 2}, None),
        ({"RescaleIntercept": -1024}, None),
        ({"RescaleSlope": 0, "RescaleIntercept": -1024}, (1.0, -1024.0)),
        ({"RescaleSlope": "two", "RescaleIntercept": -1024}, (1.0, -1024.0)),
        ({"RescaleSlope": 2, "RescaleIntercept": "none"}, (2.0, 0.0)),
        ({"RescaleSlope": 0, "RescaleIntercept": "none"}, None),
        ({}, None),
    ],
)
def test_the_rescale_of_usable_numbers(
    attributes: dict[str, Any], rescale: tuple[float, float] | None
) -> None:
    assert _read(**attributes).rescale == rescale


@pytest.mark.parametrize(
    ("bits", "signed", "written", "value"),
    [
        (16, 1, 32768, -32768),
        (16, 1, 32767, 32767),
        (16, 1, 63536, -2000),
        (16, 0, 63536, 63536),
        (8, 1, 128, -128),
        (8, 1, 127, 127),
        (None, 1, 32768, -32768),  # 16 bits where the file does not state them
        (None, 1, 32767, 32767),
    ],
)
def test_padding_of_signed_pixels_that_is_written_as_unsigned(
    bits: int | None, signed: int, written: int, value: int
) -> None:
    dataset = Dataset()
    if bits is not None:
        dataset.BitsAllocated = bits
    dataset.PixelRepresentation = signed
    dataset.add_new("PixelPaddingValue", "US", written)
    assert read_display(dataset).padding == (value, value)


def test_a_range_of_padding_is_in_order() -> None:
    dataset = Dataset()
    dataset.add_new("PixelPaddingValue", "US", 9)
    dataset.add_new("PixelPaddingRangeLimit", "US", 4)
    assert read_display(dataset).padding == (4, 9)
