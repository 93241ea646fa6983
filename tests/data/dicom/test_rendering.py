from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import JPEGLosslessSV1

from domainclip.data.dicom import reading, rendering
from domainclip.data.images.decode import decode_image
from domainclip.errors import DataError, UnreadableImage
from tests.data.made_corpora import dicom_file


def _grey(path: Path | str) -> np.ndarray:
    return np.asarray(decode_image({"path": str(path), "bytes": None}))[..., 0]


def _shipped(name: str) -> str:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return str(path)


def _reason(path: Path | str) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": str(path), "bytes": None})
    return caught.value.reason


def _row(*values: int, kind: Any = np.uint16) -> np.ndarray:
    return np.array([values], kind)


def test_a_linear_window_worked_by_hand(tmp_path: Path) -> None:
    """Fault 26: the vector of the standard."""
    # PS3.3 C.11.2.1.2.1 with c = 127, w = 2: up to 126 black, above 127 white, and 127 itself
    # ((127 - 126.5) / 1 + 0.5) * 255 = 255.
    stored = _row(0, 126, 127, 128, 255, kind=np.uint8)
    file = dicom_file(tmp_path / "a", stored, WindowCenter=127, WindowWidth=2)
    assert _grey(file).tolist() == [[0, 0, 255, 255, 255]]


def test_the_first_of_several_windows(tmp_path: Path) -> None:
    stored = _row(60, 127, kind=np.uint8)
    file = dicom_file(tmp_path / "a", stored, WindowCenter=[127, 60], WindowWidth=[2, 20])
    assert _grey(file).tolist() == [[0, 255]]
    # ((60 - 59.5) / 19 + 0.5) * 255 = 134.21
    second = rendering.render_image(file.read_bytes(), "a", 10**6, window=1)
    assert np.asarray(second)[0, :, 0].tolist() == [134, 255]


def test_a_window_of_width_0_is_ignored(tmp_path: Path) -> None:
    """Fault 26: a width of 0."""
    file = dicom_file(tmp_path / "a", _row(100, 200, 300), WindowCenter=1, WindowWidth=0)
    assert _grey(file).tolist() == [[0, 128, 255]]


def test_a_sigmoid_window(tmp_path: Path) -> None:
    # 4095 / (1 + exp(-4 (x - 2000) / 1000)), as a share of 4095: 0.5 at the centre, 0.8808 half a width on.
    keys = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}
    assert _grey(dicom_file(tmp_path / "a", _row(2000, 2500, 0), **keys)).tolist() == [[128, 225, 0]]


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    # Stored 1024 is 0 HU; a window from -100 to 100 HU puts it in the middle.
    keys = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 201}
    grey = _grey(dicom_file(tmp_path / "a", _row(0, 1024, 2048), **keys))
    assert grey.tolist() == [[0, 128, 255]]


def test_without_a_window_the_range_of_measured_pixels_is_stretched(tmp_path: Path) -> None:
    assert _grey(dicom_file(tmp_path / "a", _row(1000, 1500, 2000))).tolist() == [[0, 128, 255]]


def test_eight_bits_are_unchanged(tmp_path: Path) -> None:
    stored = _row(10, 128, 200, kind=np.uint8)
    assert _grey(dicom_file(tmp_path / "a", stored)).tolist() == [[10, 128, 200]]
    same = dicom_file(tmp_path / "b", stored, RescaleSlope=1, RescaleIntercept=0)
    assert _grey(same).tolist() == [[10, 128, 200]]


def test_signed_values(tmp_path: Path) -> None:
    assert _grey(dicom_file(tmp_path / "a", _row(-1000, 0, 1000, kind=np.int16))).tolist() == [[0, 128, 255]]


def test_padding_is_black_and_does_not_stretch_the_range(tmp_path: Path) -> None:
    stored = _row(-2000, 0, 100, kind=np.int16)
    padded = dicom_file(tmp_path / "a", stored, PixelPaddingValue=-2000)
    assert _grey(padded).tolist() == [[0, 0, 255]]
    assert _grey(dicom_file(tmp_path / "b", stored)).tolist() == [[0, 243, 255]]
    inverted = dicom_file(
        tmp_path / "c", stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"
    )
    assert _grey(inverted).tolist() == [[0, 255, 0]]


def test_a_padding_range(tmp_path: Path) -> None:
    keys = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}
    stored = _row(-2000, -1900, 0, 100, kind=np.int16)
    assert _grey(dicom_file(tmp_path / "a", stored, **keys)).tolist() == [[0, 0, 0, 255]]


def test_nothing_but_padding_is_black(tmp_path: Path) -> None:
    assert _grey(dicom_file(tmp_path / "a", _row(7, 7), PixelPaddingValue=7)).tolist() == [[0, 0]]


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1500, "WindowWidth": 1001}])
def test_a_monochrome1_twin_gives_identical_pixels(tmp_path: Path, window: dict[str, Any]) -> None:
    """Fault 25: a negative that is declared as MONOCHROME1 gives the model the same input."""
    stored = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    plain = dicom_file(tmp_path / "a", stored, **window)
    # The second file stores the negative, with the window of the negative's values: the window of
    # C.11.2.1.2.1 is symmetric about c - 0.5.
    twin_window = {**window, "WindowCenter": 4095 - 1500 + 1} if window else {}
    twin = dicom_file(tmp_path / "b", 4095 - stored, PhotometricInterpretation="MONOCHROME1", **twin_window)
    assert np.array_equal(_grey(plain), _grey(twin))
    control = dicom_file(tmp_path / "c", 4095 - stored, **twin_window)
    assert np.abs(_grey(plain).astype(int) - _grey(control)).max() > 200


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_inverse_presentation_inverts_once(tmp_path: Path, photometric: str) -> None:
    keys = {"PhotometricInterpretation": photometric, "PresentationLUTShape": "INVERSE"}
    assert _grey(dicom_file(tmp_path / "a", _row(0, 4095), **keys)).tolist() == [[255, 0]]


def test_a_voi_table_is_preferred_to_a_window(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4, 0, 16]
    item.LUTData = [0, 65535, 32768, 0]
    item["LUTData"].VR = "US"
    file = dicom_file(tmp_path / "a", _row(0, 1, 2, 3), WindowCenter=1, WindowWidth=2, VOILUTSequence=[item])
    assert _grey(file).tolist() == [[0, 255, 128, 0]]


def test_a_modality_table(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [3, 0, 16]
    item.LUTData = [500, 100, 300]
    item["LUTData"].VR = "US"
    item.ModalityLUTType = "US"
    file = dicom_file(tmp_path / "a", _row(0, 1, 2), ModalityLUTSequence=[item])
    assert _grey(file).tolist() == [[255, 0, 128]]


@pytest.mark.parametrize(
    "name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm", "examples_overlay.dcm"]
)
def test_windows_agree_with_pydicom(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(_shipped(name))
        windowed = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        ends = apply_voi_lut(np.array([-1e9, 1e9]), dataset)
    expected = (windowed - ends[0]) / (ends[1] - ends[0]) * 255
    expected[dataset.pixel_array == dataset.get("PixelPaddingValue")] = 0
    assert np.abs(_grey(_shipped(name)) - expected).max() <= 0.5
    assert _grey(_shipped(name)).std() > 10


def test_computed_tomography_in_hounsfield_units() -> None:
    """Fault 26: CT_small in Hounsfield units, with the default window of a CT, 100/2500."""
    dataset = pydicom.dcmread(_shipped("CT_small.dcm"))
    values = apply_modality_lut(dataset.pixel_array, dataset)
    assert (values.min(), values.max()) == (-896, 1167)
    # PS3.3 C.11.2.1.2.1 with c = 100, w = 2500.
    expected = np.floor(np.clip((values - 99.5) / 2499 + 0.5, 0, 1) * 255 + 0.5)
    assert np.array_equal(_grey(_shipped("CT_small.dcm")), expected)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_padded.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_every_encoding_of_one_image_gives_the_same_pixels(name: str) -> None:
    dataset = pydicom.dcmread(_shipped(name))
    if not get_decoder(dataset.file_meta.TransferSyntaxUID).is_available:
        pytest.skip("needs the dicom extra")
    assert np.array_equal(_grey(_shipped(name)), _grey(_shipped("MR_small.dcm")))


@pytest.mark.parametrize(
    ("name", "size"),
    [("examples_palette.dcm", (800, 350)), ("examples_ybr_color.dcm", (320, 240)),
     ("image_dfl.dcm", (512, 512)), ("SC_rgb_rle_16bit.dcm", (100, 100)),
     ("SC_ybr_full_422_uncompressed.dcm", (100, 100)),
     ("liver_1frame.dcm", (512, 512)), ("rtdose.dcm", (10, 10)), ("ExplVR_BigEnd.dcm", (80, 60))],
)  # fmt: skip
def test_colour_depth_and_frames_of_all_kinds(name: str, size: tuple[int, int]) -> None:
    image = decode_image({"path": _shipped(name), "bytes": None})
    assert (image.mode, image.size) == ("RGB", size)
    assert np.asarray(image).std() > 10


def test_colours_are_those_of_the_uncompressed_twin() -> None:
    sixteen, eight = (
        np.asarray(decode_image({"path": _shipped(name), "bytes": None})).astype(int)
        for name in ("SC_rgb_rle_16bit.dcm", "SC_rgb_rle.dcm")
    )
    assert np.abs(sixteen - eight).max() <= 1


def test_another_frame(tmp_path: Path) -> None:
    data = Path(_shipped("SC_rgb_rle_2frame.dcm")).read_bytes()
    first, second = (
        np.asarray(rendering.render_image(data, "a", 10**6, frame=k)).astype(int) for k in (0, 1)
    )
    # The test file's second frame is the negative of its first.
    assert np.abs(first + second - 255).max() <= 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtplan.dcm", "not an image (RTPLAN)"),
        ("test-SR.dcm", "not an image (SR)"),
        ("waveform_ecg.dcm", "not an image (ECG)"),
        ("dicomdirtests/DICOMDIR", "not an image (DICOMDIR)"),
        ("UN_sequence.dcm", "no pixel data"),
        ("MR_truncated.dcm", "pixel data cut off"),
        ("no_meta.dcm", "not an image"),
        ("meta_missing_tsyntax.dcm", "the attribute Rows is missing"),
        (
            "JPEG2000-embedded-sequence-delimiter.dcm",
            "compressed data of more pixels than its header says",
        ),
    ],
)
def test_files_without_an_image_are_refused_with_their_kind(name: str, reason: str) -> None:
    """Fault 28: no pixels, no preamble, bad VR, truncated pixels, plans and reports: each has its reason."""
    path = _shipped(name)
    assert _reason(path) == reason
    with pytest.raises(DataError) as caught:
        decode_image({"path": path, "bytes": None})
    assert str(caught.value) == f"{path}: {reason}"


def test_a_missing_decoder_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    assert _reason(_shipped("SC_rgb_jpeg_gdcm.dcm")) == (
        "no decoder for JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection "
        "Value 1]): pip install python-gdcm"
    )


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(1, 2), Rows=60000, Columns=60000)
    assert _reason(file) == "more than 89478485 pixels"


def _message(data: bytes) -> str:
    """The error of a file, with everything that Python would print of its causes; "" for a valid file."""
    try:
        decode_image({"path": "x", "bytes": data})
    except DataError as error:
        return "".join(traceback.format_exception(error))
    return ""


def test_no_error_or_warning_contains_a_patients_name(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    file = dicom_file(tmp_path / "a", _row(1, 2), PatientName="Canary^Patient", PatientID="MRN-4711")
    data = bytearray(file.read_bytes())
    # A value that its VR forbids: pydicom would quote it.
    place = data.index(b"Canary^Patient")
    data[place - 4 : place - 2] = b"DS"
    messages = [_message(bytes(data[:cut])) for cut in range(0, len(data), 9)]
    assert sum(map(bool, messages)) > 20
    assert not [text for text in messages if "Canary" in text or "4711" in text]
    assert not [warning for warning in recwarn if "Canary" in str(warning.message)]


def test_headers_contain_only_the_requested_attributes(tmp_path: Path) -> None:
    file = dicom_file(
        tmp_path / "a", _row(1, 2), PatientName="Canary^Patient", ViewPosition="PA", PatientID="7"
    )
    assert reading.read_header(file, ["ViewPosition", "PatientSex"]) == {
        "ViewPosition": "PA",
        "PatientSex": "",
    }
    assert reading.read_header(file, ["PatientID"]) == {"PatientID": "7"}


def test_a_file_without_patient_belongs_to_its_study(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a", _row(1, 2), StudyInstanceUID="1.2.3")
    assert reading.read_header(file, ["PatientID"]) == {"PatientID": "1.2.3"}


@pytest.mark.parametrize(
    ("name", "reason"), [("rtplan.dcm", "not an image (RTPLAN)"), ("no_meta.dcm", "no DICOM preamble")]
)
def test_headers_of_files_without_an_image(name: str, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        reading.read_header(Path(_shipped(name)), ["PatientID"])
    assert caught.value.reason == reason


def test_pixels_are_eight_bits(tmp_path: Path) -> None:
    image = decode_image({"path": str(dicom_file(tmp_path / "a", _row(0, 9))), "bytes": None})
    assert isinstance(image, Image.Image)
    assert np.asarray(image).dtype == np.uint8
