"""Image files of every format that is read, whole and broken."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from tests.fuzz.oracle import CANARY
from tests.fuzz.tables import edited_bytes


@cache
def samples() -> dict[str, bytes]:
    """One small image of each kind, with the secret in its texts."""
    noise = np.random.default_rng(0)
    grey = Image.fromarray(noise.integers(0, 256, (20, 24), np.uint8))
    colour = Image.fromarray(noise.integers(0, 256, (20, 24, 3), np.uint8))
    deep = Image.fromarray(noise.integers(0, 65536, (20, 24), np.uint16))
    float_grey = Image.fromarray(noise.random((20, 24), np.float32))
    alpha = colour.convert("RGBA")
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = CANARY, 6
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", CANARY)
    text.add_itxt("Name", CANARY, zip=True)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = CANARY
    more = [grey.resize((24, 20)), grey.rotate(90).resize((24, 20))]
    return {
        "png": _saved(colour, "PNG", pnginfo=text, exif=exif, icc_profile=icc),
        "png palette": _saved(colour.quantize(16), "PNG", transparency=3),
        "png 16": _saved(deep, "PNG"),
        "png alpha": _saved(alpha, "PNG", dpi=(72, 72)),
        "apng": _saved(grey, "PNG", save_all=True, append_images=more),
        "jpeg": _saved(colour, "JPEG", exif=exif, icc_profile=icc, comment=CANARY.encode()),
        "jpeg progressive": _saved(grey, "JPEG", progressive=True),
        "jpeg cmyk": _saved(colour.convert("CMYK"), "JPEG"),
        "mpo": _saved(colour, "MPO", save_all=True, append_images=[colour]),
        "tiff": _saved(colour, "TIFF", tiffinfo=tags, exif=exif),
        "tiff deflate 16": _saved(deep, "TIFF", compression="tiff_deflate"),
        "tiff lzw": _saved(colour, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": _saved(colour, "TIFF", compression="jpeg"),
        "tiff float": _saved(float_grey, "TIFF"),
        "tiff 1 bit": _saved(grey.convert("1"), "TIFF", compression="group4"),
        "tiff pages": _saved(grey, "TIFF", save_all=True, append_images=more),
        "webp": _saved(alpha, "WEBP", exif=exif, icc_profile=icc),
        "webp lossless": _saved(colour, "WEBP", lossless=True, save_all=True, append_images=[colour]),
        "gif": _saved(grey, "GIF", save_all=True, append_images=more, comment=CANARY.encode()),
        "bmp": _saved(colour, "BMP"),
        "bmp palette": _saved(grey, "BMP"),
        "jp2": _saved(colour, "JPEG2000"),
        "avif": _saved(colour, "AVIF", exif=exif),
        "ico": _saved(alpha, "ICO"),
        "ppm": _saved(colour, "PPM"),
        "ppm text": b"P3\n2 2 255\n1 2 3 4 5 6 7 8 9 10 11 12\n",
        "pgm 16": _saved(deep, "PPM"),
    }


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


_NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 8, 16, 17, 32, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
)


@st.composite
def _png_chunk_changed(draw: st.DrawFn, data: bytes) -> bytes:
    """One chunk changed under a checksum that fits, cut out, doubled or moved."""
    chunks, at = [], 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    number = draw(st.integers(0, len(chunks) - 1))
    kind, body = chunks[number]
    match draw(st.integers(0, 5)):
        case 0:
            chunks.insert(draw(st.integers(0, len(chunks))), chunks.pop(number))
        case 1:
            chunks.insert(number, chunks[number])
        case 2:
            kind = draw(
                st.sampled_from(
                    [
                        b"tEXt",
                        b"zTXt",
                        b"iTXt",
                        b"iCCP",
                        b"eXIf",
                        b"PLTE",
                        b"tRNS",
                        b"gAMA",
                        b"acTL",
                        b"fdAT",
                        b"IEND",
                    ]
                )
            )
            chunks.insert(number, (kind, body + CANARY.encode()))
        case 3 if len(body) >= 8:
            at = draw(st.integers(0, min(len(body) // 4 - 1, 3))) * 4
            chunks[number] = (kind, body[:at] + struct.pack(">I", draw(_NUMBERS)) + body[at + 4 :])
        case _:
            chunks[number] = (kind, draw(edited_bytes(body)))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@st.composite
def _tiff_entry_changed(draw: st.DrawFn, data: bytes) -> bytes:
    """One number of the first directory of a TIFF changed."""
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entry = start + 2 + 12 * draw(st.integers(0, count - 1))
    at, size = draw(st.sampled_from([(0, 2), (2, 2), (4, 4), (8, 4), (8, 2)]))
    value = (draw(_NUMBERS) % 256**size).to_bytes(size, "little")
    return data[: entry + at] + value + data[entry + at + size :]


@st.composite
def _word_changed(draw: st.DrawFn, data: bytes) -> bytes:
    """A number near the beginning, where headers are, changed in either byte order."""
    at, size = draw(st.integers(0, min(len(data) - 4, 120))), draw(st.sampled_from([1, 2, 4]))
    value = (draw(_NUMBERS) % 256**size).to_bytes(size, draw(st.sampled_from(["little", "big"])))
    return data[:at] + value + data[at + size :]


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, bytes]:
    """The kind of an image and its bytes, changed."""
    kind = draw(st.sampled_from(sorted(samples())))
    data = samples()[kind]
    forms = [edited_bytes(data), _word_changed(data)]
    if "png" in kind:
        forms += [_png_chunk_changed(data)] * 3
    if "tiff" in kind and data[:2] == b"II":
        forms += [_tiff_entry_changed(data)] * 2
    return kind, draw(st.sampled_from(forms).flatmap(lambda form: form))
