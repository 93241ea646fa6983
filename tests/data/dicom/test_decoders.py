"""Fault 27: every encoding decodes to the pixels of the uncompressed file, or a decoder is named."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from domainclip.data.dicom import decoders
from domainclip.data.dicom.decoders import DecoderRow
from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import JPEG_12, by_gdcm, colour_file, encapsulated

# 12 of 16 bits, without repeated runs or planes.
STORED = (np.add.outer(np.arange(12) * 37, np.arange(16) * 201) % 4096).astype(np.uint16)
COLOUR = np.stack([STORED, STORED // 2, STORED // 4], -1).astype(np.uint8)
# STORED as lossless HTJ2K, by OpenJPH [ISO/IEC 15444-15].
HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQ"
    "kJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH4AAf+TwAAmnfcFB3QAAMAAE0AAEwBY/gMHdAB4/gIH"
    "dADAABPAABKAKKP8AoJ0AHP+MjMAwAAVUAAFUIYNG/6ggjICdgCkpKSkwCEBvrYAwAArYAAWiJCQkJCQkOeKenGCdwBIBEEQBEH++gQg"
    "e/YQgey6AP/Z"
)
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(decode_image({"path": str(path), "bytes": None}))


def _twins(folder: Path, stored: np.ndarray, **attributes: Any) -> Path:
    return dicom_file(folder / "plain.dcm", stored, **attributes)


def _reencoded(path: Path, like: Path, syntax: UID) -> Path:
    """The file `like` in another native encoding."""
    dataset = pydicom.dcmread(like)
    if syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = dataset.pixel_array.astype(dataset.pixel_array.dtype.newbyteorder(">")).tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path,
        dataset,
        implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
        force_encoding=True,
    )
    return path


@pytest.mark.parametrize("kind", ["unsigned 12", "signed 16", "8"])
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        "JPEGLosslessProcess14",
        "JPEGLosslessProcess14_1",
    ],
)
def test_every_lossless_encoding_equals_its_uncompressed_twin(
    tmp_path: Path, syntax: UID | str, kind: str
) -> None:
    """Fault 27: signed, 12-bit, big-endian, deflated, RLE, J2K, JPEG-LS and JPEG Lossless."""
    large = np.tile(STORED, (3, 3))  # JPEG 2000 halves an image five times
    stored: dict[str, np.ndarray] = {
        "unsigned 12": large,
        "signed 16": large.astype(np.int16) - 2000,
        "8": large.astype(np.uint8),
    }
    bits = {"BitsStored": 16, "HighBit": 15} if kind == "signed 16" else {}
    plain = _twins(tmp_path, stored[kind], **bits)
    twin = tmp_path / "twin.dcm"
    if not isinstance(syntax, UID):
        by_gdcm(twin, plain, syntax)
    elif syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
        dataset = pydicom.dcmread(plain)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(twin)
    else:
        _reencoded(twin, plain, syntax)
    assert pydicom.dcmread(twin).file_meta.TransferSyntaxUID != uid.ExplicitVRLittleEndian
    assert np.array_equal(_pixels(twin), _pixels(plain))
    assert len(np.unique(_pixels(plain))) > 50


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_colour_of_every_lossless_encoding(tmp_path: Path, syntax: UID) -> None:
    large = np.tile(COLOUR, (3, 3, 1))
    plain = colour_file(tmp_path / "plain.dcm", large)
    dataset = pydicom.dcmread(plain)
    dataset.compress(syntax, generate_instance_uid=False)
    if syntax == uid.JPEG2000Lossless:
        dataset.PhotometricInterpretation = "YBR_RCT"  # the encoder used its reversible colours
    dataset.save_as(tmp_path / "twin.dcm")
    assert np.array_equal(_pixels(tmp_path / "twin.dcm"), large)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
def test_htj2k(tmp_path: Path, syntax: UID) -> None:
    plain = _twins(tmp_path, STORED)
    twin = encapsulated(tmp_path / "twin.dcm", plain, syntax, [HTJ2K])
    assert np.array_equal(_pixels(twin), _pixels(plain))
    assert decoders.decoder_table([twin]) == [DecoderRow(syntax.name, "pylibjpeg+pylibjpeg-openjpeg", 1)]


def test_jpeg_of_12_bits(tmp_path: Path) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 256}
    plain = _twins(tmp_path, STORED, **window)
    twin = encapsulated(tmp_path / "twin.dcm", plain, uid.JPEGExtended12Bit, [JPEG_12])
    assert np.abs(_pixels(twin).astype(int) - _pixels(plain)).max() <= 1
    assert decoders.decoder_table([twin]) == [
        DecoderRow("JPEG Extended (Process 2 and 4), 12 bit", "python-gdcm", 1)
    ]


def test_pydicoms_jpeg_of_12_bits() -> None:
    # Range 0 to 264; pydicom's tests expect 244 and 95 at these positions.
    pixels = _pixels(TEST_FILES / "JPEG-lossy.dcm")[..., 0]
    assert (pixels[420, 140], pixels[230, 120]) == (round(244 / 264 * 255), round(95 / 264 * 255))


def test_a_frame_of_raw_deflate_data(tmp_path: Path) -> None:
    plain = _twins(tmp_path, STORED)
    packer = zlib.compressobj(wbits=-15)
    frames = [packer.compress(STORED.tobytes()) + packer.flush()]
    packer = zlib.compressobj(wbits=-15)
    frames.append(packer.compress((4095 - STORED).tobytes()) + packer.flush())
    twin = encapsulated(tmp_path / "twin.dcm", plain, decoders.DEFLATED_FRAME, frames)
    assert np.array_equal(_pixels(twin), _pixels(plain))
    second = np.asarray(decode_image({"path": f"{twin}#frame=1", "bytes": None}))
    assert np.abs(second.astype(int) + _pixels(plain) - 255).max() <= 1
    assert decoders.decoder_table([twin])[0].decoder == "zlib"


def test_a_deflate_bomb_is_not_inflated(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(b"\1" * 10**7) + packer.flush()
    twin = encapsulated(tmp_path / "twin.dcm", _twins(tmp_path, STORED), decoders.DEFLATED_FRAME, [bomb])
    assert _pixels(twin).shape == (12, 16, 3)  # no more bytes than the size in the header


def test_the_decoder_table_counts_files_by_syntax_and_reads_no_pixels(tmp_path: Path) -> None:
    plain = [dicom_file(tmp_path / f"{i}.dcm", STORED) for i in range(3)]
    ls = pydicom.dcmread(plain[0])
    ls.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    ls.save_as(tmp_path / "ls.dcm")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(plain[0].read_bytes()[:-300])  # within the pixels
    (tmp_path / "note.txt").write_text("no DICOM file", encoding="utf-8")
    paths = [*plain, tmp_path / "ls.dcm", cut, tmp_path / "note.txt", TEST_FILES / "rtplan.dcm"]
    views = [f"{plain[0]}#frame=0", f"{plain[0]}#frame=1"]  # of a file that is already counted
    assert decoders.decoder_table([*paths, *views]) == [
        DecoderRow("Explicit VR Little Endian", "pydicom", 4),
        DecoderRow("JPEG-LS Lossless Image Compression", "pyjpegls", 1),
    ]


@pytest.mark.parametrize(
    ("syntax", "bits", "line"),
    [
        (uid.JPEGLosslessSV1, 8, "pip install python-gdcm"),
        (uid.JPEGLossless, 16, "pip install python-gdcm"),
        (uid.JPEGExtended12Bit, 12, "pip install python-gdcm"),
        (uid.JPEGLSLossless, 8, "pip install pyjpegls"),
        (uid.JPEG2000, 8, "pip install pylibjpeg pylibjpeg-openjpeg"),
        (uid.HTJ2K, 8, "pip install pylibjpeg pylibjpeg-openjpeg"),
        (
            uid.MPEG4HP41,
            8,
            "no permissive decoder reads it: convert these files, for example to JPEG 2000",
        ),
    ],
)
def test_the_command_that_installs_a_missing_decoder(
    syntax: UID, bits: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_is_installed", lambda package: False)
    assert decoders.remedy(syntax, bits) == line


def test_only_missing_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_is_installed", lambda package: package == "pylibjpeg")
    assert decoders.remedy(uid.HTJ2K) == "pip install pylibjpeg-openjpeg"


def test_a_row_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = by_gdcm(tmp_path / "a.dcm", _twins(tmp_path, STORED), "JPEGLosslessProcess14")
    monkeypatch.setattr(get_decoder(uid.JPEGLossless), "_available", {})
    monkeypatch.setattr(decoders, "_is_installed", lambda package: False)
    name = "JPEG Lossless, Non-Hierarchical (Process 14)"
    assert decoders.decoder_table([file]) == [DecoderRow(name, "", 1, "pip install python-gdcm")]
    with pytest.raises(UnreadableImage) as caught:
        _pixels(file)
    assert caught.value.reason == f"no decoder for {name}: pip install python-gdcm"


def test_a_library_under_the_gpl_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gpl(*_: Any) -> bytes:
        raise AssertionError("pylibjpeg-libjpeg was used")

    for syntax in (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGExtended12Bit):
        available = get_decoder(syntax)._available
        monkeypatch.setattr(get_decoder(syntax), "_available", {"pylibjpeg": gpl, **available})
        assert "pylibjpeg" not in decoders.permissive_plugins(syntax)
    file = by_gdcm(tmp_path / "a.dcm", _twins(tmp_path, STORED), "JPEGLosslessProcess14_1")
    assert _pixels(file).std() > 10
    # If no other decoder is installed, it is reported as missing.
    monkeypatch.setattr(get_decoder(uid.JPEGLosslessSV1), "_available", {"pylibjpeg": gpl})
    with pytest.raises(UnreadableImage, match="no decoder for JPEG Lossless"):
        _pixels(file)


def test_video_is_refused_with_the_name_of_its_syntax(tmp_path: Path) -> None:
    file = encapsulated(tmp_path / "a.dcm", _twins(tmp_path, STORED), uid.MPEG4HP41, [b"\0" * 8])
    with pytest.raises(UnreadableImage) as caught:
        _pixels(file)
    assert caught.value.reason == "unknown transfer syntax (MPEG-4 AVC/H.264 High Profile / Level 4.1)"
    assert [(row.decoder, row.files) for row in decoders.decoder_table([file])] == [("", 1)]


def test_after_a_decoder_that_fails_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pydicom.dcmread(_twins(tmp_path, STORED))
    dataset.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm")
    decoder = get_decoder(uid.JPEGLSLossless)

    def broken(*_: Any) -> bytes:
        raise ValueError("cannot")

    others = {name: plugin for name, plugin in decoder._available.items() if name != "pyjpegls"}
    for available in ({**others, "pyjpegls": broken}, others):  # one that fails, one that is not installed
        monkeypatch.setattr(decoder, "_available", available)
        assert np.array_equal(_pixels(tmp_path / "a.dcm"), _pixels(tmp_path / "plain.dcm"))


_ANY = ("native", "big endian", "JPEG 2000")  # encodings of up to 32 bits
_BITS = [
    (syntax, *bits)
    for bits in [
        (8, 6, False),
        (8, 8, True),
        (16, 10, False),
        (16, 12, True),
        (32, 20, False),
        (32, 12, True),
    ]
    for syntax in (*_ANY, *(("RLE", "JPEG-LS", "JPEG Lossless") if bits[0] < 32 else ()))
]


@pytest.mark.parametrize(("syntax", "allocated", "stored", "signed"), _BITS)
def test_bits_of_every_encoding(
    tmp_path: Path, syntax: str, allocated: int, stored: int, signed: bool
) -> None:
    """A ramp over all values is shown from black to white, whatever their number of bits."""
    ramp = np.add.outer(np.arange(48), np.arange(48)) / 94
    values = np.floor(ramp * (2**stored - 1)) - 2 ** (stored - 1) * signed
    kind = f"<{'i' if signed else 'u'}{allocated // 8}"
    bits = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": int(signed)}
    file = dicom_file(tmp_path / "a.dcm", values.astype(kind), **bits)
    twin = tmp_path / "b.dcm"
    dataset = pydicom.dcmread(file)
    compressed = {"RLE": uid.RLELossless, "JPEG-LS": uid.JPEGLSLossless, "JPEG 2000": uid.JPEG2000Lossless}
    if syntax in compressed:
        dataset.compress(compressed[syntax], generate_instance_uid=False)
        dataset.save_as(twin)
    elif syntax == "big endian":
        _reencoded(twin, file, uid.ExplicitVRBigEndian)
    elif syntax == "JPEG Lossless":
        by_gdcm(twin, file, "JPEGLosslessProcess14_1")
    shown = _pixels(file if syntax == "native" else twin)[..., 0].astype(int)
    low, high = values.min(), values.max()
    assert np.abs(shown - (values - low) / (high - low) * 255).max() <= 1


@pytest.mark.parametrize("model", ["YBR_FULL", "YBR_FULL_422"])
def test_sixteen_bits_of_luminance_and_chroma(tmp_path: Path, model: str) -> None:
    ycc = np.array([[[40000, 20000, 50000], [10000, 20000, 50000]]], np.uint16)
    stored = ycc if model == "YBR_FULL" else np.array([40000, 10000, 20000, 50000], np.uint16)
    file = colour_file(tmp_path / "a.dcm", ycc, PhotometricInterpretation=model)
    dataset = pydicom.dcmread(file)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(file)
    y, cb, cr = ycc.astype(float).transpose(2, 0, 1) - np.array([0, 32768, 32768])[:, None, None]
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    assert np.abs(_pixels(file) - np.clip(rgb, 0, 65535) / 257).max() <= 1
