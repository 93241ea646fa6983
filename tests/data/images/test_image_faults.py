"""Broken and hostile images: each is decoded or refused with a reason, quickly and in little memory."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from domainclip.data.images.decode import FORMATS, decode_image
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file, encoded

_NOISE = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
_OPTIONS: dict[str, dict[str, Any]] = {
    "GIF": {"save_all": True, "append_images": [Image.new("RGB", (23, 17))]},
    "MPO": {"save_all": True, "append_images": [Image.new("RGB", (23, 17))]},
    "TIFF": {"compression": "tiff_lzw"},
}
KINDS = [kind for kind in (*FORMATS, "MPO") if kind in Image.SAVE or kind in Image.SAVE_ALL]


def _valid(kind: str, folder: Path) -> bytes:
    if kind == "DICOM":
        return dicom_file(folder / "a.dcm", np.arange(400, dtype=np.uint16).reshape(20, 20)).read_bytes()
    if kind == "FITS":
        fits = pytest.importorskip("astropy.io.fits")
        stream = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(_NOISE[..., 0].astype(np.float32))]).writeto(stream)
        return stream.getvalue()
    return encoded(Image.fromarray(_NOISE), kind, **_OPTIONS.get(kind, {}))


def _mutated(data: bytes, draw: np.random.Generator) -> bytes:
    """The data with a few bytes changed, mostly near the beginning, where headers are; or with a part cut out."""
    broken = bytearray(data)
    for _ in range(int(draw.integers(1, 9))):
        reach = len(broken) if draw.random() < 0.5 else min(len(broken), 200)
        broken[int(draw.integers(reach))] = int(draw.choice([0, 1, 127, 128, 255, draw.integers(256)]))
    if draw.random() < 0.3:
        start, stop = sorted(map(int, draw.integers(len(broken), size=2)))
        del broken[start:stop]
    return bytes(broken)


def _refusal(data: bytes) -> str:
    """The reason why bytes are refused, "" for an image; any other error is raised."""
    try:
        image = decode_image({"path": "x", "bytes": data})
    except UnreadableImage as error:
        return error.reason
    assert image.mode == "RGB"
    return ""


@pytest.mark.parametrize("kind", [*KINDS, "FITS", "DICOM"])
def test_fault_21_three_hundred_broken_files_of_each_kind(kind: str, tmp_path: Path) -> None:
    """Fault 21: every fault raises UnreadableImage, and nothing hangs."""
    data, draw = _valid(kind, tmp_path), np.random.default_rng(len(kind))
    assert _refusal(data) == ""  # the control
    began = time.monotonic()
    reasons = [_refusal(_mutated(data, draw)) for _ in range(300)]
    assert time.monotonic() - began < 60
    assert max(map(len, reasons)) < 100
    assert "\n" not in "".join(reasons)
    # BMP, PPM and similar formats have few bytes that can be wrong.
    assert sum(map(bool, reasons)) > 20


@pytest.mark.parametrize("kind", [*KINDS, "FITS", "DICOM"])
def test_fault_21_truncated_anywhere(kind: str, tmp_path: Path) -> None:
    """Fault 21: a truncated file is refused or still decodes to an image; half a file is refused."""
    data = _valid(kind, tmp_path)
    for length in range(0, len(data), max(1, len(data) // 60)):
        assert len(_refusal(data[:length])) < 100
    # The first of two frames of a GIF is in its first half.
    assert _refusal(data[: len(data) // (4 if kind in ("GIF", "MPO") else 2)])


@pytest.mark.parametrize("name", ["a.jpg", "a.dcm", "a.fits", "a", "a.txt"])
def test_fault_21_the_content_counts_not_the_name(name: str, tmp_path: Path) -> None:
    """Fault 21: a file with the suffix of another format."""
    (tmp_path / name).write_bytes(encoded(Image.fromarray(_NOISE)))
    image = decode_image({"path": str(tmp_path / name), "bytes": None})
    assert np.asarray(image).tolist() == _NOISE.tolist()


def test_fault_21_zero_bytes_and_no_bytes() -> None:
    """Fault 21: an empty file, and a file of zeros, as a full disk may leave."""
    for data, reason in ((b"", "empty file"), (b"\0" * 5000, "not an image")):
        with pytest.raises(UnreadableImage) as caught:
            decode_image({"path": "a.png", "bytes": data})
        assert str(caught.value) == f"a.png: {reason}"


def _tiff(*entries: tuple[int, int, int, int]) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0" + b"\0" * 64


@pytest.mark.parametrize(
    "data",
    [
        # A strip offset of an unexpected type, for which Pillow raises TypeError.
        _tiff(
            (256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 2, 5, 8), (279, 4, 1, 64)
        ),
        _tiff((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 4, 9), (277, 3, 1, 250), (273, 4, 1, 8)),
        _tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31)),
        _tiff((256, 4, 2**31, 8)),
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff\xff\xd9",
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\0" * 30,
        b"BM" + b"\xff" * 60,
        b"P6\n99999999999999999999 1\n255\n",
        b"P6 -1 -1 255\n",
        b"\0\0\1\0\1\0\0\0" + b"\xff" * 30,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 60,
        b"SIMPLE  =                    T" + b" " * 3000,
        b"\0" * 128 + b"DICM" + b"\xff" * 100,
    ],
)
def test_fault_21_inputs_like_known_crashers(data: bytes) -> None:
    """Fault 21: headers with impossible values."""
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": "x", "bytes": data})
    assert "\n" not in caught.value.reason


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *more: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * min(height, 100))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + b"".join(more)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def _bombs() -> dict[str, bytes]:
    zeros = zlib.compress(b"\0" * 300_000_000, 9)  # 300 MB in 300 kB
    inner = _png(30_000, 30_000)
    ico = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    wide = (256, 4, 1, 60_000), (257, 4, 1, 60_000)
    strip = (
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, 60_000),
        (279, 4, 1, 64),
    )
    return {
        "gif": b"GIF89a"
        + struct.pack("<HH", 65_535, 65_535)
        + b"\x80\0\0"
        + b"\0" * 6
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
        + b"\x02\x01\x04\0;",
        "ico": ico,
        "png": inner,
        "png-text": _png(8, 8, _chunk(b"zTXt", b"x\0\0" + zeros)),
        "png-profile": _png(8, 8, _chunk(b"iCCP", b"x\0\0" + zeros)),
        "png-international": _png(8, 8, _chunk(b"iTXt", b"x\0\1\0\0\0" + zeros)),
        "tiff": _tiff(*wide, *strip),
        "bmp": b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 50000 50000 255\n" + b"\0" * 100,
        "fits": b"".join(
            card.ljust(80).encode()
            for card in (
                "SIMPLE  =                    T",
                "BITPIX  =                    8",
                "NAXIS   =                    2",
                "NAXIS1  =                60000",
                "NAXIS2  =                60000",
                "END",
            )
        ).ljust(2880)
        + b"\0" * 2880,
    }


def _dicom_bombs(folder: Path) -> dict[str, bytes]:
    small = np.zeros((80, 80), np.uint8)
    plain = dicom_file(folder / "plain.dcm", small).read_bytes()
    meta = dicom_file(folder / "a.dcm", small)
    dataset = pydicom.dcmread(meta)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(meta)
    data = meta.read_bytes()
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    # The whole data set, then a private element of 1 GB of zeros.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [packer.compress(zlib.decompress(data[end:], -15))]
    parts.append(
        packer.compress(b"\xe1\x7f\x10\x00LO\x04\x00TEST\xe1\x7f\x01\x10OB\0\0" + struct.pack("<I", 2**30))
    )
    parts += [packer.compress(bytes(2**24)) for _ in range(2**6)]
    bombs = {"dicom-deflated": data[:end] + b"".join(parts) + packer.flush()}
    # Streams with headers of 60000 times 60000 pixels, in a file of 80 times 80.
    size = struct.pack(">8I", 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0)
    siz = b"\xff\x4f\xff\x51" + struct.pack(">HH", 41, 0) + size + b"\0\1\7\1\1"
    sof = b"\xff\xd8\xff\xe0\0\4ab\xff%c\0\x0b\x08" + struct.pack(">HH", 60_000, 60_000) + b"\1\1\x11\0"
    streams = {
        "jpeg2000": (JPEG2000Lossless, siz),
        "htj2k": (HTJ2K, siz),
        "jpeg": (JPEGBaseline8Bit, sof % 0xC0),
        "lossless": (JPEGLosslessSV1, sof % 0xC3),
        "jpegls": (JPEGLSLossless, sof % 0xF7),
    }
    for name, (syntax, stream) in streams.items():
        dataset = pydicom.dcmread(io.BytesIO(plain))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([stream + bytes(200)])
        dataset.save_as(folder / "b.dcm")
        bombs[f"dicom-{name}"] = (folder / "b.dcm").read_bytes()
    return bombs


def _deep(side: int) -> bytes:
    values = np.zeros((side, side), np.uint16)
    values[0, 0] = 40_000
    return encoded(Image.fromarray(values), "TIFF", compression="tiff_adobe_deflate")


def _zipped_fits() -> bytes:
    head = ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 9400", "NAXIS2  = 9400", "END")
    lines = b"".join(
        (f"{line[:10]}{line[10:].strip():>20}" if "=" in line else line).ljust(80).encode() for line in head
    )
    return gzip.compress(lines.ljust(2880) + bytes(9400 * 9400), 9)


_CAPPED = """
import resource, sys, time
from pathlib import Path
from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
try:
    import astropy.io.fits, astropy.visualization
except ImportError:
    pass
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250_000_000, used + 250_000_000))
for file in sorted(Path(sys.argv[1]).iterdir()):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode_image({"path": str(file), "bytes": None})
        reason = "decoded"
    except UnreadableImage as error:
        reason = error.reason
    print(file.stem, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, reason, sep="|")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")
def test_fault_22_decompression_bombs_under_a_memory_cap(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fault 22: a small file that would fill the memory is refused before it does."""
    made = tmp_path_factory.mktemp("made")
    bombs = _bombs() | {"fits-zipped": _zipped_fits()} | _dicom_bombs(made)
    # Valid files: decoding 16 bits a pixel takes little more memory than the image.
    bombs |= {"tiff-deep": _deep(3000)}
    for name, data in bombs.items():
        assert len(data) < 1_100_000
        (tmp_path / f"{name}.{name.split('-')[0]}").write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", _CAPPED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    results = {line.split("|")[0]: line.split("|")[1:] for line in run.stdout.splitlines()}
    assert set(results) == set(bombs)
    grown = {name: int(grown) for name, (grown, _) in results.items()}
    assert grown.pop("tiff-deep") < 130
    assert {name: size for name, size in grown.items() if size > 60} == {}
    larger = "compressed data of more pixels than its header says"
    assert {name: reason for name, (_, reason) in results.items()} == {
        "bmp": "decompression bomb",
        "dicom-deflated": "decompression bomb",
        "dicom-htj2k": larger,
        "dicom-jpeg": larger,
        "dicom-jpeg2000": larger,
        "dicom-jpegls": larger,
        "dicom-lossless": larger,
        "fits-zipped": "decompression bomb",
        "fits": "more than 89478485 pixels",
        "gif": "decompression bomb",
        "ico": "decompression bomb",
        "png": "decompression bomb",
        "png-international": "decompression bomb",
        "png-profile": "decompression bomb",
        "png-text": "decompression bomb",
        "ppm": "decompression bomb",
        "tiff": "decompression bomb",
        "tiff-deep": "decoded",
    }
