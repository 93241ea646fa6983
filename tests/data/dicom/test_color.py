"""Colour models of DICOM files, against values worked by hand or against the same file in RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from PIL import Image, ImageCms
from pydicom.pixels import apply_color_lut, convert_color_space

from domainclip.data.dicom import rendering
from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import colour_file, item

RGB = np.random.default_rng(3).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def _pixels(path: Path | str) -> np.ndarray:
    return np.asarray(decode_image({"path": str(path), "bytes": None}))


def _steps(path: Path) -> str:
    return rendering.describe_rendering(path.read_bytes(), str(path), 10**9)


def test_rgb_by_pixel_and_by_plane(tmp_path: Path) -> None:
    assert np.array_equal(_pixels(colour_file(tmp_path / "a", RGB)), RGB)
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    file = colour_file(tmp_path / "b", RGB, PlanarConfiguration=1, PixelData=planes.tobytes())
    assert np.array_equal(_pixels(file), RGB)
    assert _steps(file) == "RGB; 8 bit"


def test_sixteen_bits_a_colour(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 257
    assert np.array_equal(_pixels(colour_file(tmp_path / "a", wide)), RGB)


def test_ybr_full(tmp_path: Path) -> None:
    ybr = convert_color_space(RGB.copy(), "RGB", "YBR_FULL")
    file = colour_file(tmp_path / "a", ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(_pixels(file).astype(int) - RGB).max() <= 2  # the rounding of YBR
    # Grey by hand: Y = 100 with both colour differences at 128 is (100, 100, 100).
    grey = colour_file(
        tmp_path / "b", np.full((1, 2, 3), (100, 128, 128), np.uint8), PhotometricInterpretation="YBR_FULL"
    )
    assert _pixels(grey).tolist() == [[[100, 100, 100], [100, 100, 100]]]


def test_ybr_full_422_has_half_the_colours(tmp_path: Path) -> None:
    # Y0 Y1 Cb Cr: two greys that share their colour differences.
    data = bytes([10, 200, 128, 128])
    keys: dict[str, Any] = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": data}
    file = colour_file(tmp_path / "a", np.zeros((1, 2, 3), np.uint8), **keys)
    assert _pixels(file).tolist() == [[[10, 10, 10], [200, 200, 200]]]


def _palette(depth: int, data: dict[str, bytes], count: int = 4, **more: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        keys[f"{name}PaletteColorLookupTableDescriptor"] = [count, 0, depth]
    return {**keys, **data, **more}


def test_palette_of_8_and_16_bits(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    colours = {"Red": [0, 255, 0, 51], "Green": [0, 0, 255, 102], "Blue": [0, 0, 0, 204]}
    expected = [[[0, 0, 0], [255, 0, 0], [0, 255, 0], [51, 102, 204]]]
    for depth, kind, factor in ((8, np.uint8, 1), (16, np.uint16, 257)):
        data = {
            f"{name}PaletteColorLookupTableData": (np.array(levels) * factor).astype(kind).tobytes()
            for name, levels in colours.items()
        }
        file = dicom_file(tmp_path / f"{depth}", stored, **_palette(depth, data))
        assert _pixels(file).tolist() == expected
        assert _steps(file) == "PALETTE COLOR; 8 bit"


def test_segmented_palette(tmp_path: Path) -> None:
    # C.7.9.2: opcode 0, 2 discrete entries 0 and 255; opcode 1, 2 more on a line to 51.
    segments = np.array([0, 2, 0, 255, 1, 2, 51], np.uint8).tobytes() + b"\0"
    wide = np.array([0, 2, 0, 65535, 1, 2, 13107], "<u2").tobytes()
    assert len(segments) % 2 == 0
    data = {f"Segmented{name}PaletteColorLookupTableData": wide for name in ("Red", "Green", "Blue")}
    file = dicom_file(tmp_path / "a", np.array([[0, 1, 2, 3]], np.uint8), **_palette(16, data))
    assert _pixels(file)[0, :, 0].tolist() == [0, 255, 153, 51]
    dataset = pydicom.dcmread(file)
    assert apply_color_lut(dataset.pixel_array, dataset)[0, :, 0].tolist() == [0, 65535, 39321, 13107]


def test_a_colour_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    profile = Path(pydicom.data.__file__).parent / "test_files" / "crayons.icc"
    file = colour_file(tmp_path / "a", RGB, ICCProfile=profile.read_bytes())
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(str(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB"
    )
    expected = ImageCms.applyTransform(Image.fromarray(RGB), transform)
    assert np.array_equal(_pixels(file), np.asarray(expected))
    assert not np.array_equal(_pixels(file), RGB)
    assert _steps(file) == "RGB; ICC profile to sRGB; 8 bit"
    # The profile of a slide is in its optical path.
    slide = colour_file(tmp_path / "b", RGB, OpticalPathSequence=[item(ICCProfile=profile.read_bytes())])
    assert np.array_equal(_pixels(slide), np.asarray(expected))


def test_a_broken_colour_profile_is_ignored_and_reported(tmp_path: Path) -> None:
    file = colour_file(tmp_path / "a", RGB, ICCProfile=b"no profile")
    assert np.array_equal(_pixels(file), RGB)
    assert _steps(file) == "RGB; ICC profile not usable; 8 bit"


def test_a_profile_of_a_grey_image_is_ignored(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", np.array([[10, 200]], np.uint8), ICCProfile=b"no profile")
    assert _steps(file) == "8 bits as they are; 8 bit"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("CMYK", "a colour model (PhotometricInterpretation) that is not read (CMYK)"),
        ("YBR_PARTIAL_420", "a colour model (PhotometricInterpretation) that is not read (YBR_PARTIAL_420)"),
        ("SMITH_JOHN", "a colour model (PhotometricInterpretation) that is not read"),
    ],
)
def test_colour_models_that_are_not_read(tmp_path: Path, model: str, reason: str) -> None:
    file = colour_file(tmp_path / "a", RGB, PhotometricInterpretation=model)
    with pytest.raises(UnreadableImage) as caught:
        _pixels(file)
    assert caught.value.reason == reason


def test_overlays_are_not_drawn(tmp_path: Path) -> None:
    stored = np.array([[10, 20, 30, 40]], np.uint8)
    plain = dicom_file(tmp_path / "a", stored)
    dataset = pydicom.dcmread(plain)
    dataset.add_new(0x60000010, "US", 1)
    dataset.add_new(0x60000011, "US", 4)
    dataset.add_new(0x60003000, "OW", b"\x0f\x00")
    dataset.save_as(tmp_path / "b")
    assert np.array_equal(_pixels(plain), _pixels(tmp_path / "b"))
