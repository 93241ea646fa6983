"""Steps of the rendering at their edges: defaults, sizes, signs, tables, rounding, and faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip.data.dicom import rendering, stored_values
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import table_item


def _grey(path: Path, max_pixels: int = 10**9, **place: Any) -> list[int]:
    image = rendering.render_image(path.read_bytes(), "a", max_pixels, **place)
    return [int(value) for value in np.asarray(image)[0, :, 0]]


def test_halves_round_up_and_what_is_no_level_is_black_or_white() -> None:
    values = np.array([np.nan, -np.inf, np.inf, -3.0, 300.0, 0.49, 0.5, 0.4999995, 254.49, 254.5])
    assert rendering.to_eight_bits(values).tolist() == [0, 0, 255, 0, 255, 0, 1, 1, 254, 255]


def test_the_first_frame_and_the_first_window_by_default(tmp_path: Path) -> None:
    stored = np.array([[[10, 90]], [[90, 10]]], np.uint8)
    file = dicom_file(
        tmp_path / "a", stored.reshape(2, 2), Rows=1, Columns=2, NumberOfFrames=2,
        WindowCenter=[50, 200], WindowWidth=[2, 2],
    )  # fmt: skip
    data = file.read_bytes()
    assert _grey(file) == [0, 255]
    assert _grey(file, frame=1) == [255, 0]
    image, steps = rendering.render(data, "a", 10**9)
    assert (np.asarray(image)[0, :, 0].tolist(), steps) == ([0, 255], "window 50/2 (1 of 2); 8 bit")
    assert rendering.describe_rendering(data, "a", 10**9) == steps


def test_the_largest_image(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", np.array([[1, 2, 3, 4]], np.uint8))
    assert _grey(file, max_pixels=4) == [1, 2, 3, 4]
    with pytest.raises(UnreadableImage, match="more than 3 pixels"):
        _grey(file, max_pixels=3)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (np.int8, [-128, 0, 127]),  # differences of 8 signed bits do not fit into them
        (np.uint32, [0, 65_536, 131_071]),  # nor do these fit into 16 bits
        (np.int32, [-70_000, -4_464, 61_072]),
        (np.uint16, [0, 32_768, 65_535]),
    ],
)
def test_values_of_any_span(tmp_path: Path, kind: Any, values: list[int]) -> None:
    bits = np.dtype(kind).itemsize * 8
    file = dicom_file(tmp_path / "a", np.array([values], kind), BitsStored=bits, HighBit=bits - 1)
    expected = [255 * (value - values[0]) / (values[-1] - values[0]) for value in values]
    assert _grey(file) == pytest.approx(expected, abs=0.51)


def test_a_slope_multiplies_and_an_intercept_adds(tmp_path: Path) -> None:
    """2·20 + 5 = 45; a window over 0 … 100: (45 − 49.5)/100 + 0.5 of 255 is 116.0."""
    keys = {"RescaleSlope": 2, "RescaleIntercept": 5, "WindowCenter": 50, "WindowWidth": 101}
    assert _grey(dicom_file(tmp_path / "a", np.array([[20]], np.uint16), **keys)) == [116]


@pytest.mark.parametrize("first", [0, 7])
def test_a_presentation_table_spans_black_to_white(tmp_path: Path, first: int) -> None:
    """1024 entries of 10 bits; 225 of 255 is the input 902.6, so the entry 903: 225.1 of 255."""
    lut = table_item(first, 10, list(range(1024)))
    keys = {"WindowCenter": 128, "WindowWidth": 256, "PresentationLUTSequence": [lut]}
    file = dicom_file(tmp_path / "a", np.array([[0, 225, 255]], np.uint8), **keys)
    assert _grey(file) == [0, 225, 255]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "more memory than there is"),
        (KeyError("Doe^Jane"), "broken DICOM image (KeyError)"),
    ],
)
def test_faults_name_their_type_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(stored_values, "read_stored_values", fail)
    with pytest.raises(UnreadableImage) as caught:
        _grey(dicom_file(tmp_path / "a", np.array([[1]], np.uint8)))
    assert caught.value.reason == reason


def test_a_palette_without_its_tables(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", np.array([[1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(UnreadableImage) as caught:
        _grey(file)
    assert caught.value.reason == "the attribute RedPaletteColorLookupTableDescriptor is missing"
