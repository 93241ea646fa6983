"""Choice of a window, presets, and lookup tables, against values worked by hand or against pydicom."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_presentation_lut, apply_voi

from domainclip.data.dicom import lookup_tables, reading, rendering, windowing
from domainclip.data.dicom.display import read_display
from domainclip.data.dicom.pixel_format import read_pixel_format
from domainclip.data.images.decode import decode_image
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import table_item

HU = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
TWO = {
    "WindowCenter": [40, -600],
    "WindowWidth": [400, 1500],
    "WindowCenterWidthExplanation": ["ABDOMEN", "LUNG"],
}


def _row(*values: int, kind: Any = np.uint16) -> np.ndarray:
    return np.array([values], kind)


def _grey(path: Path, **place: Any) -> list[int]:
    image = rendering.render_image(path.read_bytes(), str(path), 10**9, **place)
    return [int(value) for value in np.asarray(image)[0, :, 0]]


def _steps(path: Path, **place: Any) -> str:
    return rendering.describe_rendering(path.read_bytes(), str(path), 10**9, **place)


def test_several_windows_by_index_and_by_explanation(tmp_path: Path) -> None:
    """Fault 26: several windows; -1000, -600, 40 and 240 HU."""
    file = dicom_file(tmp_path / "a", _row(24, 424, 1064, 1264), **HU, **TWO)
    # c = 40, w = 400: (x - 39.5) / 399 + 0.5 of 255. c = -600, w = 1500: (x + 600.5) / 1499 + 0.5 of 255.
    first, second = [0, 0, 128, 255], [60, 128, 236, 255]
    assert _grey(file) == _grey(file, window=0) == _grey(file, window="abdomen") == first
    assert _grey(file, window=1) == _grey(file, window="LUNG") == _grey(file, window="1") == second
    assert _steps(file, window="LUNG") == "rescale 1 -1024; window -600/1500 (2 of 2); 8 bit"
    # The choice in a location.
    grey = np.asarray(decode_image({"path": f"{file}#window=LUNG", "bytes": None}))[0, :, 0]
    assert grey.tolist() == second


def test_the_first_window_replaces_one_that_a_file_does_not_have(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(24, 424, 1064, 1264), **HU, **TWO)
    assert _grey(file, window=7) == _grey(file, window="spine") == _grey(file)


@pytest.mark.parametrize("name", windowing.PRESETS)
def test_presets_are_in_hounsfield_units(tmp_path: Path, name: str) -> None:
    centre, width = windowing.PRESETS[name]
    # With c = 40, w = 400: -160 is black (C.11.2.1.2.1: x <= c - 0.5 - 199.5), 239 white, 40 in the middle.
    low, high = int(centre - width / 2), int(centre + width / 2) - 1
    stored = _row(low, int(centre), high, kind=np.int16)
    file = dicom_file(tmp_path / "a", stored, **{**HU, "RescaleIntercept": 0}, BitsStored=16, HighBit=15)
    grey = _grey(file, window=name)
    assert (grey[0], grey[2]) == (0, 255)
    assert grey[1] in (128, 129, 131)  # half a unit above the middle
    file = dicom_file(tmp_path / "b", _row(0), **HU)
    assert _steps(file, window=name) == (
        f"rescale 1 -1024; window {centre:g}/{width:g} (preset {name}); 8 bit"
    )


def test_a_window_of_the_file_overrides_a_preset_of_that_name(tmp_path: Path) -> None:
    window = {"WindowCenter": 0, "WindowWidth": 11, "WindowCenterWidthExplanation": "LUNG"}
    file = dicom_file(tmp_path / "a", _row(1024), **HU, **window)
    assert _steps(file, window="lung") == "rescale 1 -1024; window 0/11; 8 bit"


def test_presets_apply_to_computed_tomography_only(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(0, 100), WindowCenter=50, WindowWidth=101)
    assert _grey(file, window="lung") == _grey(file)


def test_a_tomogram_without_a_window_gets_the_default_preset(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(0, 1024, 1124), **HU)
    # c = 100, w = 2500: -1024 HU is (-1123.5 / 2499 + 0.5) * 255 = 12.86, 0 HU is 117.3, 100 HU 127.6.
    assert _grey(file) == [13, 117, 128]
    assert _steps(file) == "rescale 1 -1024; window 100/2500 (no window in the file: preset wide); 8 bit"
    # A CT without Hounsfield units: its range is stretched.
    plain = dicom_file(tmp_path / "b", _row(0, 1024, 2048), Modality="CT")
    assert _grey(plain) == [0, 128, 255]


def test_linear_exact(tmp_path: Path) -> None:
    # C.11.2.1.3.2: (x - c) / w + 0.5, so 100 is in the middle, and half of 10 below it is black.
    keys = {"WindowCenter": 100, "WindowWidth": 10, "VOILUTFunction": "LINEAR_EXACT"}
    file = dicom_file(tmp_path / "a", _row(95, 100, 102, 105), **keys)
    assert _grey(file) == [0, 128, 179, 255]
    assert _steps(file) == "window 100/10 linear_exact; 8 bit"


def test_a_window_of_width_one_has_two_greys(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(99, 100), WindowCenter=100, WindowWidth=1)
    assert _grey(file) == [0, 255]


def test_several_tables_by_index_and_by_explanation(tmp_path: Path) -> None:
    """Fault 26: VOI tables, as vlut_04; several entries, inputs outside the table, one of two."""
    luts = [
        table_item(1, 16, [0, 65535], LUTExplanation="SOFT"),
        table_item(0, 8, [255, 51, 0], LUTExplanation="HARD"),
    ]
    file = dicom_file(tmp_path / "a", _row(0, 1, 2, 9), VOILUTSequence=luts)
    assert _grey(file) == [0, 0, 255, 255]
    assert _grey(file, window="hard") == _grey(file, window=1) == [255, 51, 0, 0]
    assert _steps(file, window=1) == "VOI table (2 of 2); 8 bit"


def test_a_header_contains_the_names_of_the_tables(tmp_path: Path) -> None:
    luts = [table_item(1, 16, [0, 65535]), table_item(0, 8, [255, 51, 0], LUTExplanation="HARD")]
    file = dicom_file(tmp_path / "a", _row(0, 1, 2, 9), VOILUTSequence=luts)
    assert reading.read_header(file, ["VOILUTSequence"]) == {"VOILUTSequence": "unnamed\\HARD"}


def test_a_table_of_8_bits_with_more_than_256_entries(tmp_path: Path) -> None:
    entries = [min(255, value // 4) for value in range(1024)]
    file = dicom_file(
        tmp_path / "a", _row(0, 255, 256, 600, 1023), VOILUTSequence=[table_item(0, 8, entries)]
    )
    assert _grey(file) == [0, 63, 64, 150, 255]


@pytest.mark.parametrize("entry", ["words", "bytes of words", "bytes"])
def test_tables_agree_with_pydicom(entry: str) -> None:
    values = np.array([[-5, 0, 3, 7, 250]])
    entries = [7, 1, 200, 30, 255]
    lut = table_item(2, 8, entries)
    if entry == "bytes of words":
        lut.LUTData, lut["LUTData"].VR = struct.pack("<5H", *entries), "OW"
    dataset = pydicom.Dataset()
    dataset.VOILUTSequence = [lut]
    dataset.set_original_encoding(False, True, "latin1")
    expected = apply_voi(values, dataset)
    if entry == "bytes":  # pydicom cannot read these
        lut.LUTData, lut["LUTData"].VR = bytes([*entries, 0]), "OW"
    table = lookup_tables.read_lookup_table(lut, dataset)
    assert table is not None
    assert table.look_up(values).tolist() == expected.tolist() == [[7, 7, 1, 255, 255]]


def test_a_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    """Fault 26: a modality table, as mlut_18, with a window in its units."""
    lut = table_item(10, 16, [1000, 1100, 1200], ModalityLUTType="HU")
    keys = {"WindowCenter": 1100, "WindowWidth": 201}
    file = dicom_file(tmp_path / "a", _row(0, 10, 11, 12, 99), ModalityLUTSequence=[lut], **keys)
    dataset = pydicom.dcmread(file)
    assert apply_modality_lut(dataset.pixel_array, dataset).tolist() == [[1000, 1000, 1100, 1200, 1200]]
    # (1000 - 1099.5) / 200 + 0.5 = 0.0025 of 255 is 0.64; 0.5025 is 128.1.
    assert _grey(file) == [1, 1, 128, 255, 255]
    assert _steps(file) == "modality table; window 1100/201; 8 bit"


def test_a_presentation_table_maps_the_output_of_the_window(tmp_path: Path) -> None:
    lut = table_item(0, 10, [0, 1023, 512])
    # A window over 0 to 100 gives the shares 0, ½ and 1, the three entries of the table.
    keys = {"WindowCenter": 50.5, "WindowWidth": 101, "PresentationLUTSequence": [lut]}
    file = dicom_file(tmp_path / "a", _row(0, 50, 100), **keys)
    assert _grey(file) == [0, 255, 128]
    dataset = pydicom.dcmread(file)
    assert apply_presentation_lut(np.array([[0.0, 50.0, 100.0]]), dataset).tolist() == [[0, 1023, 512]]
    assert _steps(file) == "window 50.5/101; presentation table; 8 bit"


def test_signed_padding_that_is_written_as_unsigned(tmp_path: Path) -> None:
    stored = _row(-2000, 0, 100, kind=np.int16)
    file = dicom_file(tmp_path / "a", stored)
    dataset = pydicom.dcmread(file)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(file)
    assert _grey(file) == [0, 0, 255]
    assert _steps(file) == "range 0 to 100; padding black; 8 bit"


def test_float_pixels(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(0, 0, 0, 0))
    dataset = pydicom.dcmread(file)
    del dataset.PixelData
    dataset.FloatPixelData = np.array([0.25, 0.5, np.nan, -1e9], np.float32).tobytes()
    dataset.FloatPixelPaddingValue = -1e9
    dataset.BitsAllocated = 32
    del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.save_as(file)
    assert _grey(file) == [0, 255, 0, 0]


def test_has_window_by_attributes_of_a_header() -> None:
    attributes = {
        "WindowWidth": "400\\1500",
        "WindowCenterWidthExplanation": "ABDOMEN\\Lung",
        "Modality": "CT",
    }
    assert [windowing.has_window(attributes, choice) for choice in (0, 1, 2, "lung", "brain", "spine")] == [
        True, True, False, True, True, False
    ]  # fmt: skip
    assert not windowing.has_window({**attributes, "Modality": "MR"}, "brain")
    assert windowing.has_window({}, 0)
    tables = {"VOILUTSequence": "unnamed\\HARD", "WindowWidth": "400"}
    assert [windowing.has_window(tables, choice) for choice in (2, 3, "hard", "soft")] == [
        True,
        False,
        True,
        False,
    ]
    assert windowing.has_window({"NumberOfFrames": "3"}, "spine")


def test_the_order_of_all_rendering_steps(tmp_path: Path) -> None:
    keys = {
        **HU,
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelPaddingValue": 0,
        "WindowCenter": 0,
        "WindowWidth": 201,
    }
    file = dicom_file(tmp_path / "a", _row(0, 1024, 2048), **keys)
    assert _grey(file) == [0, 127, 0]
    assert _steps(file, window="soft_tissue") == (
        "rescale 1 -1024; window 40/400 (preset soft_tissue); inverted; padding black; 8 bit"
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.uint32])
def test_computing_each_value_once_changes_nothing(tmp_path: Path, kind: Any) -> None:
    stored = np.random.default_rng(1).integers(0, min(np.iinfo(kind).max, 5000), (17, 23)).astype(kind)
    stored[3:5] = 7
    variants: list[dict[str, Any]] = [
        {"PixelPaddingValue": 7},
        {"RescaleSlope": 0.3, "RescaleIntercept": -5, "WindowCenter": 300, "WindowWidth": 900},
        {"PhotometricInterpretation": "MONOCHROME1", "VOILUTFunction": "SIGMOID"},
    ]
    for i, keys in enumerate(variants):
        dataset = pydicom.dcmread(dicom_file(tmp_path / f"{i}", stored, **keys))
        with np.errstate(over="ignore"):
            how = (read_pixel_format(dataset, "a"), read_display(dataset), 0)
            once, steps = rendering._render_grey(stored, *how)
            each, direct_steps = rendering._grey_levels(stored, *how)
        assert np.array_equal(once, each)
        assert steps == direct_steps
    wide = stored.astype(np.uint32) * 10**5  # too many values for a table
    assert np.array_equal(rendering._render_grey(wide, *how)[0], rendering._grey_levels(wide, *how)[0])
