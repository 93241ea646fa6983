"""Attributes that break the standard: the image is shown through what is usable, and the doubt is counted."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from domainclip.data.checks.images import unused_attributes
from domainclip.data.dicom import doubts, isolated_gdcm, rendering
from domainclip.data.dicom.attributes import parse_number, uid_name
from domainclip.data.dicom.decoders import DecoderRow, decoder_table
from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import colour_file, encapsulated, item, table_item

RAMP = (np.add.outer(np.arange(16), np.arange(16)) * 136).astype(np.uint16)  # 0 … 4080
WINDOW = {"WindowCenter": 2040.5, "WindowWidth": 4081}
FULL = np.rint(RAMP / 16).astype(int)
CANARY = "CANARY^PAT1947"


def _raw(keyword: str, value: bytes, vr: str = "DS") -> Callable[[Dataset], None]:
    """Set the bytes of an attribute, whatever its type allows."""

    def change(dataset: Dataset) -> None:
        tag = Tag(keyword)
        padded = value + b" " * (len(value) % 2)
        dataset[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)

    return change


def _changed(path: Path, change: Callable[[Dataset], Any], stored: np.ndarray = RAMP, **keys: Any) -> Path:
    dataset = pydicom.dcmread(dicom_file(path, stored, **keys))
    change(dataset)
    dataset.save_as(path)
    return path


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(decode_image({"path": str(path), "bytes": None})).astype(int)


def _reason(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": str(path), "bytes": None})
    return caught.value.reason


EMPTY_TABLE = item(LUTDescriptor=None, LUTData=b"", LUTExplanation="Normal")
EMPTY_TABLE["LUTData"].VR = "OW"


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (_raw("WindowCenter", b"NaN"), "WindowCenter (no number)"),
        (_raw("WindowCenter", b"1e999"), "WindowCenter (no number)"),
        (_raw("WindowCenter", b"-90000"), "WindowCenter (outside the values of the pixels)"),
        (_raw("WindowWidth", b"NORMAL"), "WindowWidth (no number)"),
        (_raw("WindowWidth", b"-2500"), "WindowWidth (below 1)"),
        (_raw("WindowWidth", b"1,500"), "WindowWidth (no number)"),  # a thousand, or one and a half
        (_raw("WindowWidth", b""), "WindowWidth (fewer values)"),
        (_raw("WindowCenter", b"2040,5"), "WindowCenter (decimal comma, read as a point)"),
        (_raw("VOILUTFunction", b"LINEAR\\LINEAR", "CS"), "VOILUTFunction (several values)"),
        (_raw("VOILUTFunction", b"SAMPLED_SIGMOID", "CS"), "VOILUTFunction (unknown)"),
        (_raw("RescaleSlope", b"0"), "RescaleSlope (0)"),
        (_raw("RescaleSlope", b"1,0"), "RescaleSlope (decimal comma, read as a point)"),
        (_raw("RescaleSlope", b"one"), "RescaleSlope (no number)"),
        (_raw("RescaleIntercept", b"zero"), "RescaleIntercept (no number)"),
        (lambda d: d.add_new("VOILUTSequence", "SQ", [EMPTY_TABLE]), "VOILUTSequence (no usable table)"),
        (lambda d: d.add_new("ModalityLUTSequence", "SQ", [item()]), "ModalityLUTSequence (no usable table)"),
        (_raw("PresentationLUTShape", b"ROUND", "CS"), "PresentationLUTShape (not allowed)"),
        (_raw("PixelPaddingValue", b"", "US"), ""),
        (_raw("HighBit", b"\x03\0", "US"), "HighBit (not allowed)"),
        (_raw("NumberOfFrames", b"1.0", "IS"), ""),
        (_raw("NumberOfFrames", b"two", "IS"), "NumberOfFrames (not allowed)"),
        (_raw("PhotometricInterpretation", b"Monochrome2", "CS"), "not spelt as in the standard"),
        (_raw("PixelRepresentation", b"\x05\0", "US"), "PixelRepresentation (not allowed)"),
        (lambda d: d.__delattr__("PixelRepresentation"), "PixelRepresentation (missing)"),
        (lambda d: d.__delattr__("SamplesPerPixel"), "SamplesPerPixel (missing)"),
        (lambda d: d.__delattr__("BitsStored"), "BitsStored (missing)"),
        (lambda d: d.__delattr__("BitsAllocated"), "BitsAllocated (missing)"),
    ],
)
def test_a_bad_attribute_does_not_cost_the_image(
    tmp_path: Path, change: Callable[[Dataset], Any], doubt: str
) -> None:
    """Fault 26: whatever is wrong, the ramp is shown from black to white, and what is wrong is counted."""
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    file = _changed(tmp_path / "a.dcm", change, **WINDOW, **rescale)
    shown = _pixels(file)[..., 0]
    assert np.abs(shown - FULL).max() <= 2
    found = doubts.file_doubts(file)
    assert len(found) == bool(doubt)
    assert doubt in "".join(found)
    assert unused_attributes([str(file)]) is not None
    texts = [finding.text for finding in unused_attributes([str(file)])]
    assert len(texts) == bool(doubt)


def test_the_next_usable_window_is_taken(tmp_path: Path) -> None:
    bad_first = _changed(tmp_path / "a.dcm", _raw("WindowCenter", b"x\\2040.5"), WindowWidth=[5, 4081])
    assert np.abs(_pixels(bad_first)[..., 0] - FULL).max() <= 1
    table = [EMPTY_TABLE, table_item(0, 16, [0, 65535])]
    beside = dicom_file(tmp_path / "b.dcm", RAMP, VOILUTSequence=table, WindowCenter=1, WindowWidth=1)
    assert set(_pixels(beside)[..., 0].ravel().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("1500,5", 1500.5), ("0,488", 0.488), (",5", 0.5), ("-12,25", -12.25), ("1,500", None)],
        *[("1_0", None), ("12e2", 1200), ("+.5", 0.5), ("inf", None), ("0x10", None), ("", None)],
        *[("1e400", None), ("\u0663", None)],  # an Arabic digit
    ],
)
def test_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", ["native", "big endian", "RLE"])
def test_values_in_the_upper_bits(tmp_path: Path, signed: bool, syntax: str) -> None:
    """HighBit 15 of 12 bits stored: left-justified, with or without overlays below."""
    stored = RAMP.astype(np.int16) - 2048 * signed
    kind = "<i2" if signed else "<u2"
    for below in (0, 5):
        word = ((stored.astype(np.int32) << 4) | below).astype(kind)
        file = dicom_file(tmp_path / "a.dcm", word, HighBit=15)
        dataset = pydicom.dcmread(file)
        if syntax == "RLE":
            dataset.BitsStored = 16
            dataset.compress(uid.RLELossless, generate_instance_uid=False)
            dataset.BitsStored = 12
            dataset.save_as(file)
        elif syntax == "big endian":
            dataset.PixelData = word.astype(kind.replace("<", ">")).tobytes()
            dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
            pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
        assert np.abs(_pixels(file)[..., 0] - FULL).max() <= 1


def test_a_high_bit_that_the_values_contradict(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a.dcm", RAMP + 1, HighBit=15)
    assert np.abs(_pixels(file)[..., 0] - FULL).max() <= 1


COLOUR = np.zeros((16, 16, 3), np.uint8)
COLOUR[..., 0], COLOUR[:, 8:, 1], COLOUR[8:, :, 2] = 200, 180, 60


def _jpeg(markers: bool = True, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG", quality=95, **{"subsampling": 0, **options})
    data = stream.getvalue()
    while not markers and data[2:4] in (b"\xff\xe0", b"\xff\xee"):
        data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
    return data


@pytest.mark.parametrize("model", ["RGB", "YBR_FULL", "YBR_FULL_422", "Rgb", "MONOCHROME2"])
@pytest.mark.parametrize("markers", [True, False])
@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"keep_rgb": True}])
def test_the_colours_of_a_jpeg_are_those_of_its_stream(
    tmp_path: Path, model: str, markers: bool, options: dict[str, Any]
) -> None:
    """libjpeg's rule: JFIF, Adobe's marker, then the identifiers of the components."""
    like = colour_file(tmp_path / "like.dcm", COLOUR)
    keys: dict[str, Any] = {"PhotometricInterpretation": model}
    if model == "MONOCHROME2":
        keys["SamplesPerPixel"] = 1
    stream = _jpeg(markers, **options)
    file = encapsulated(tmp_path / "a.dcm", like, uid.JPEGBaseline8Bit, [stream], **keys)
    inner = np.abs(_pixels(file) - COLOUR)[[2, 2, 13, 13], [2, 13, 2, 13]]  # away from the edges
    assert inner.max() <= 6


@pytest.mark.parametrize("planar", [0, 1, None])
def test_planar_configuration(tmp_path: Path, planar: int | None) -> None:
    stored = np.moveaxis(COLOUR, 2, 0) if planar else COLOUR
    file = colour_file(tmp_path / "a.dcm", COLOUR, PlanarConfiguration=planar)
    dataset = pydicom.dcmread(file)
    dataset.PixelData = stored.tobytes()
    if planar is None:
        del dataset.PlanarConfiguration
    dataset.save_as(file)
    assert np.array_equal(_pixels(file), COLOUR)
    expected = ("PlanarConfiguration (missing)",) if planar is None else ()
    assert doubts.file_doubts(file) == expected


def test_files_of_another_form(tmp_path: Path) -> None:
    """Without preamble, without TransferSyntaxUID, and without the last delimiter: read, and counted."""
    whole = dicom_file(tmp_path / "a.dcm", RAMP, **WINDOW).read_bytes()
    pixels = _pixels(tmp_path / "a.dcm")
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(whole[132:])
    assert np.array_equal(_pixels(bare), pixels)
    assert doubts.file_doubts(bare) == ("preamble (missing)",)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(tmp_path / "b.dcm", dataset, implicit_vr=False, little_endian=True)
    assert np.array_equal(_pixels(tmp_path / "b.dcm"), pixels)
    assert doubts.file_doubts(tmp_path / "b.dcm") == ("TransferSyntaxUID (missing)",)
    assert [row.decoder for row in decoder_table([tmp_path / "b.dcm"])] == ["pydicom"]
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "c.dcm")
    compressed = (tmp_path / "c.dcm").read_bytes()
    assert compressed.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    (tmp_path / "c.dcm").write_bytes(compressed[:-8])
    assert np.array_equal(_pixels(tmp_path / "c.dcm"), pixels)
    (tmp_path / "c.dcm").write_bytes(compressed[:-40])
    assert _reason(tmp_path / "c.dcm") == "pixel data cut off"


def _restated(path: Path, like: Path, syntax: str) -> Path:
    """The file with another TransferSyntaxUID, and all else as it was."""
    whole = like.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(like)
    start = 144 + meta.FileMetaInformationGroupLength
    meta.TransferSyntaxUID = uid.UID(syntax)
    stream = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(stream, meta)
    path.write_bytes(whole[:132] + stream.getvalue() + whole[start:])
    return path


@pytest.mark.parametrize(
    "stated", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit]
)
def test_a_transfer_syntax_that_contradicts_the_pixel_data(tmp_path: Path, stated: uid.UID) -> None:
    plain = dicom_file(tmp_path / "a.dcm", RAMP, **WINDOW)
    like = plain
    if stated in (uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit):
        dataset = pydicom.dcmread(plain)
        dataset.compress(uid.JPEGLSLossless, generate_instance_uid=False)
        like = tmp_path / "like.dcm"
        dataset.save_as(like)
    file = _restated(tmp_path / "b.dcm", like, stated)
    assert np.array_equal(_pixels(file), _pixels(plain))
    assert doubts.file_doubts(file) == ("TransferSyntaxUID (contradicts the pixel data)",)


def test_no_text_of_a_file_is_a_transfer_syntax(tmp_path: Path) -> None:
    """Fault 34: only registered UIDs are named."""
    file = _restated(tmp_path / "b.dcm", dicom_file(tmp_path / "a.dcm", RAMP), CANARY)
    assert _reason(file) == "unknown transfer syntax (not a registered transfer syntax)"
    assert decoder_table([file]) == [
        DecoderRow(
            "not a registered transfer syntax",
            "",
            1,
            "no permissive decoder reads it: convert these files, for example to JPEG 2000",
        )
    ]
    assert (uid_name("1.2.840.10008.1.2"), uid_name(CANARY)) == ("Implicit VR Little Endian", "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.__delattr__("Rows"), "the attribute Rows is missing"),
        (_raw("Columns", b"\0\0", "US"), "the attribute Columns is no number from 1 to 65535"),
        (_raw("Rows", CANARY.encode(), "LO"), "the attribute Rows is no number from 1 to 65535"),
        (
            lambda d: d.__delattr__("PhotometricInterpretation"),
            "the attribute PhotometricInterpretation is missing",
        ),
        (_raw("BitsAllocated", b"\x0c\0", "US"), "BitsAllocated is none of 1, 8, 16, 32 and 64"),
        (_raw("Rows", b"\xff\x7f", "US"), "pixel data cut off"),
        (_raw("PixelData", b"", "OW"), "PixelData without bytes"),
        (
            _raw("PhotometricInterpretation", b"PALETTE COLOR", "CS"),
            "the attribute RedPaletteColorLookupTableDescriptor is missing",
        ),
    ],
)
def test_a_necessary_attribute_is_named(
    tmp_path: Path, change: Callable[[Dataset], Any], reason: str
) -> None:
    file = _changed(tmp_path / "a.dcm", change)
    assert _reason(file) == reason
    with pytest.raises(UnreadableImage):
        rendering.render_image(file.read_bytes(), "a", 10**9)


def test_lines_of_a_decoder_are_captured(capfd: pytest.CaptureFixture[str]) -> None:
    before = isolated_gdcm.printed_bytes()
    _pixels(Path(str(get_testdata_file("JPEG-lossy.dcm", download=False))))
    assert isolated_gdcm.printed_kinds(before) == [False, True, False]  # "Unsupported JPEG data precision 12"
    after = isolated_gdcm.printed_bytes()
    assert after > before
    assert isolated_gdcm.printed_kinds(after) == [False] * 3
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_stops_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDCM can abort its process by an exception of C++; the next file gets another process."""
    lossy = Path(str(get_testdata_file("JPEG-lossy.dcm", download=False)))
    expected = _pixels(lossy)
    decoder = isolated_gdcm._decoder
    assert decoder is not None
    decoder.process.kill()
    decoder.process.wait()
    with monkeypatch.context() as patch:
        patch.setattr(isolated_gdcm, "_MODULE", "this")  # prints a text and ends
        assert _reason(lossy) == "JPEG Extended (Process 2 and 4) data that no installed decoder can read"
    assert np.array_equal(_pixels(lossy), expected)


def test_what_pydicom_logs_reaches_no_handler_of_another_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its texts quote values, and other libraries add a handler to the root logger."""
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("pydicom.dataelem").warning("Invalid value: %s", CANARY)
        _pixels(dicom_file(tmp_path / "a.dcm", RAMP, NumberOfFrames=7))
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err == ""


def test_an_unknown_type_of_an_attribute_is_no_traceback(tmp_path: Path) -> None:
    """Found by mutation: the type of an attribute of the file meta information, in a file without pixels."""
    data = dicom_file(tmp_path / "a.dcm", None).read_bytes()
    position = data.index(b"\x02\x00\x02\x00UI") + 4
    (tmp_path / "b.dcm").write_bytes(data[:position] + b"U\x06" + data[position + 2 :])
    assert _reason(tmp_path / "b.dcm") == "no pixel data"
