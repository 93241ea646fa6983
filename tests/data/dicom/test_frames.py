"""Frames of one file, and their individual attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from domainclip.data.dicom import doubts, frames, reading, rendering
from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import item


def _film(path: Path, count: int = 3, **attributes: Any) -> Path:
    """Frames of 1 × 2 pixels: 10k and 100."""
    stored = np.array([[[10 * k, 100]] for k in range(count)], np.uint8)
    keys = {"Rows": 1, "Columns": 2, "NumberOfFrames": count}
    return dicom_file(path, stored, **{**keys, **attributes})


def _grey(path: Path, frame: int | str = 0, window: int | str = 0) -> list[int]:
    image = rendering.render_image(path.read_bytes(), str(path), 10**6, frame, window)
    return [int(value) for value in np.asarray(image)[0, :, 0]]


@pytest.mark.parametrize(
    ("policy", "count", "representative", "selected"),
    [
        ("first", 5, 4, [0]),
        ("middle", 1, None, [0]),
        ("middle", 5, 4, [2]),
        ("middle", 4, None, [1]),
        ("key", 5, 4, [3]),
        ("key", 5, None, [2]),
        ("key", 5, 9, [2]),  # no such frame in the file
        ("all", 3, 2, [0, 1, 2]),
    ],
)
def test_policies(
    policy: frames.FramePolicy, count: int, representative: int | None, selected: list[int]
) -> None:
    assert frames.select_frames(policy, count, representative) == selected


def test_frames_of_a_multiframe_file(tmp_path: Path) -> None:
    """Fault 27: several frames; each is read separately."""
    file = _film(tmp_path / "a.dcm")
    assert [_grey(file, frame) for frame in range(3)] == [[0, 100], [10, 100], [20, 100]]
    image = decode_image({"path": f"{file}#frame=2", "bytes": None})
    assert np.asarray(image)[0, :, 0].tolist() == [20, 100]


@pytest.mark.parametrize("frame", ["3", "-1", "last"])
def test_a_frame_that_does_not_exist(tmp_path: Path, frame: str) -> None:
    file = _film(tmp_path / "a.dcm")
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": f"{file}#frame={frame}", "bytes": None})
    assert caught.value.reason == "no such frame (counted from 0)"


def test_only_the_selected_frame_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(str(get_testdata_file("examples_ybr_color.dcm", download=False)))
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGBaseline8Bit)
    met: list[int] = []
    plain = decoder._available["pillow"]

    def counting(*arguments: Any) -> Any:
        met.append(1)
        return plain(*arguments)

    monkeypatch.setattr(decoder, "_available", {"pillow": counting})
    rendering.render_image(file.read_bytes(), "a", 10**9, frame=17)
    assert len(met) == 1


def _enhanced(path: Path) -> Path:
    """Three frames of the values 0, 50 and 100; shared rescale and window; the last two override them."""
    stored = np.array([[[0, 50, 100]]] * 3, np.uint16)
    scale = item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
    wide = item(WindowCenter=50.5, WindowWidth=101)
    shared = item(PixelValueTransformationSequence=[scale], FrameVOILUTSequence=[wide])
    per_frame = [
        item(),
        item(PixelValueTransformationSequence=[item(RescaleIntercept=50, RescaleSlope=1, RescaleType="US")]),
        item(
            FrameVOILUTSequence=[
                item(
                    WindowCenter=[50.5, 100.5],
                    WindowWidth=[101, 201],
                    WindowCenterWidthExplanation=["NARROW", "WIDE"],
                )
            ]
        ),
    ]
    return dicom_file(
        path,
        stored,
        Rows=1,
        Columns=3,
        NumberOfFrames=3,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=per_frame,
    )


def test_each_frame_of_an_enhanced_file_has_its_own_rescale_and_window(tmp_path: Path) -> None:
    file = _enhanced(tmp_path / "a.dcm")
    assert _grey(file, 0) == [0, 128, 255]
    assert _grey(file, 1) == [128, 255, 255]
    assert _grey(file, 2) == [0, 128, 255]
    assert _grey(file, 2, "wide") == [0, 64, 128]
    steps = rendering.describe_rendering(file.read_bytes(), "a", 10**6, 1)
    assert steps == "rescale 1 50; window 50.5/101; 8 bit"


def test_one_bit_pixels_of_a_segmentation() -> None:
    file = Path(str(get_testdata_file("liver_1frame.dcm", download=False)))
    assert set(np.asarray(decode_image({"path": str(file), "bytes": None})).ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("syntax", ["native", "deflated", "RLE"])
def test_more_frames_than_a_file_has(tmp_path: Path, syntax: str) -> None:
    """Fault 22: a few bytes that claim a hundred thousand frames."""
    file = _film(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(file)
    if syntax == "RLE":
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    if syntax == "deflated":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.NumberOfFrames = 10**9
    dataset.save_as(file)
    header = reading.read_header(file, ["NumberOfFrames"])
    if syntax == "deflated":  # 1032 to 1 at most
        assert int(header["NumberOfFrames"]) <= file.stat().st_size * 1032 / 2
    else:
        assert header == {"NumberOfFrames": "3"}
    assert _grey(file, 2) == [20, 100]


@pytest.mark.parametrize(("stated", "read"), [(2, [0, 100]), (1, [0, 100]), (100_000, [0, 100])])
def test_a_number_of_frames_that_the_pixel_data_contradict(
    tmp_path: Path, stated: int, read: list[int]
) -> None:
    file = _film(tmp_path / "a.dcm", 1, NumberOfFrames=stated)
    assert _grey(file) == read
    expected = ("NumberOfFrames (more than the pixel data have)",) if stated > 1 else ()
    assert doubts.file_doubts(file) == expected
    with pytest.raises(UnreadableImage):
        _grey(file, 1)
