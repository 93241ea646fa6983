"""Stored values of one frame, decoded by a library under a permissive licence [DICOM PS3.5 §8, A.4]."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from domainclip.data.dicom import attributes, decoders, isolated_gdcm
from domainclip.data.dicom.codestream import Codestream, read_codestream
from domainclip.data.dicom.pixel_format import PixelFormat
from domainclip.data.dicom.transfer_syntaxes import DEFLATED_FRAME, is_encapsulated, syntax_name
from domainclip.errors import UnreadableImage

_JPEG_DCT = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_YBR = "YBR_FULL"


def read_stored_values(dataset: FileDataset, form: PixelFormat, name: str, frame: int) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3) stored values, colour as RGB; other frames are not decoded.

    Raises: UnreadableImage; for a missing decoder, with the command that installs it.
    """
    data = attributes.raw_bytes(dataset, form.keyword)
    if not data:
        raise UnreadableImage(name, f"{form.keyword} without bytes")
    if form.syntax == DEFLATED_FRAME:
        packed = _frame(dataset, form, name, frame)
        # At most the size in the header is inflated, however much a hostile stream contains.
        data = _inflate(packed, form.frame_bytes, name)
        form, frame = replace(form, syntax=uid.ExplicitVRLittleEndian, frames=1), 0
    elif attributes.uid_name(form.syntax) == "" or not _has_decoder(form.syntax):
        raise UnreadableImage(name, f"unknown transfer syntax ({syntax_name(form.syntax)})")
    if is_encapsulated(form.syntax):
        values = _decompress(dataset, form, name, frame)
    else:
        values = _decode_native(dataset, data, form, name, frame)
    if values.ndim == 2:
        return _extract_bits(values, form)
    is_ybr = form.color_model.startswith(_YBR) and values.dtype.itemsize > 1
    return _to_rgb(values, form) if is_ybr else values


def _has_decoder(syntax: UID) -> bool:
    try:
        get_decoder(syntax)
    except NotImplementedError:
        return False
    return True


def _decode_native(dataset: FileDataset, data: bytes, form: PixelFormat, name: str, frame: int) -> np.ndarray:
    """The values of an uncompressed frame.

    Raises: UnreadableImage if the data are shorter.
    """
    syntax = form.syntax
    if len(data) < form.frame_bytes:
        raise UnreadableImage(name, "pixel data cut off")
    third_more = form.frame_bytes * 3 // 2
    if form.color_model == "YBR_FULL_422" and form.samples == 3 and len(data) >= third_more * form.frames:
        form = replace(form, color_model=_YBR)  # every pixel has its own colour
    options = {**_options(form), "pixel_vr": dataset.get_item(form.keyword).VR}
    return _decoded(get_decoder(syntax), data, frame, "", options)


def _decompress(dataset: FileDataset, form: PixelFormat, name: str, frame: int) -> np.ndarray:
    """The values of a compressed frame, by the first plugin that can decode it.

    Raises: UnreadableImage naming the decoder, or the difference between the stream and the header.
    """
    packed = _frame(dataset, form, name, frame)
    stream = read_codestream(packed)
    _check_stream(stream, form, name)
    form = _of_stream(form, stream)
    syntax, bits = form.syntax, stream.precision or form.stored
    if not decoders.find_plugin(syntax, bits):
        raise UnreadableImage(name, f"no decoder for {syntax_name(syntax)}: {decoders.remedy(syntax, bits)}")
    if syntax in _JPEG_DCT and form.samples == 3 and stream.precision == 8:
        return _decode_color_jpeg(packed, form, name)
    for plugin in decoders.permissive_plugins(syntax, bits):
        plugin_syntax = _plugin_syntax(syntax, bits)
        if plugin not in get_decoder(plugin_syntax).available_plugins:
            continue
        try:
            if plugin == decoders.GDCM:
                return isolated_gdcm.decode(plugin_syntax, _as_item(packed), _options(form))
            return _decoded(get_decoder(plugin_syntax), _as_item(packed), 0, plugin, _options(form))
        except Exception:  # a plugin may raise anything; the next one is tried
            continue
    raise UnreadableImage(name, f"{syntax_name(syntax)} data that no installed decoder can read")


def _frame(dataset: FileDataset, form: PixelFormat, name: str, frame: int) -> bytes:
    """The compressed bytes of a frame.

    Raises: UnreadableImage if the file does not contain it.
    """
    try:
        packed: bytes = get_frame(
            attributes.raw_bytes(dataset, form.keyword), frame, number_of_frames=form.frames
        )
        return packed
    except Exception:  # pydicom raises several types for broken items
        raise UnreadableImage(name, "compressed pixel data without the frame, or cut off") from None


def _check_stream(stream: Codestream, form: PixelFormat, name: str) -> None:
    """Refuse a stream of another size than the header declares, before a decoder allocates memory.

    Raises: UnreadableImage.
    """
    if stream.pixels > form.rows * form.columns:
        raise UnreadableImage(name, "compressed data of more pixels than its header says")
    if stream.pixels and (stream.rows, stream.columns) != (form.rows, form.columns):
        raise UnreadableImage(name, "compressed data of another size than Rows and Columns")
    if stream.components and len(stream.components) not in (1, 3):
        raise UnreadableImage(name, "compressed data of neither 1 nor 3 samples a pixel")


def _of_stream(form: PixelFormat, stream: Codestream) -> PixelFormat:
    """The format with the samples and bits of the stream, which a header may contradict."""
    if stream.segments and stream.segments % form.samples == 0:
        allocated = 8 * stream.segments // form.samples
        return replace(form, allocated=allocated, stored=min(form.stored, allocated))
    if not stream.precision:
        return form
    samples = len(stream.components) or form.samples
    model = form.color_model
    if samples == 1 and form.samples == 3:
        model = "MONOCHROME2"
    elif samples == 3 and form.samples == 1:
        model = "RGB" if stream.kind != "baseline" else _YBR
    allocated = next(bits for bits in (8, 16, 32, 64) if stream.precision <= bits)
    # GDCM wants the bits of the stream; `_extract_bits` removes those that are not stored.
    stored = stream.precision if stream.kind == "lossless" else min(form.stored, allocated)
    return replace(form, samples=samples, color_model=model, allocated=allocated, stored=stored)


def _decode_color_jpeg(packed: bytes, form: PixelFormat, name: str) -> np.ndarray:
    """RGB of a lossy JPEG of 8 bits; the colours that it has are those of its markers, by libjpeg's rule.

    Headers often state RGB where the encoder converted to YCbCr, as most do unless they are told not to.
    """
    stream = read_codestream(packed)
    model = "RGB" if stream.is_rgb(form.color_model == "RGB") else _YBR
    options = _options(replace(form, color_model=model, planar=0))
    try:
        if stream.has_letters and stream.adobe_transform is None:  # which pydicom takes for YCbCr
            return np.asarray(Image.open(io.BytesIO(packed), formats=("JPEG",)).convert("RGB"))
        return _decoded(get_decoder(uid.JPEGBaseline8Bit), _as_item(packed), 0, "pillow", options)
    except Exception:  # Pillow and pydicom raise several types
        raise UnreadableImage(
            name, f"{syntax_name(form.syntax)} data that no installed decoder can read"
        ) from None


def _plugin_syntax(syntax: UID, bits: int) -> UID:
    """The transfer syntax under which pydicom's plugins decode a stream."""
    # GDCM reads the JPEG process from the stream and decodes 12 bits; pydicom refuses by the syntax alone.
    # Checked against libjpeg-turbo.
    return uid.JPEGLossless if syntax == uid.JPEGExtended12Bit and bits > 8 else syntax


def _options(form: PixelFormat) -> dict[str, Any]:
    """The options of pydicom's decoders; bits that are shifted are extracted here, not there."""
    return {
        "rows": form.rows,
        "columns": form.columns,
        "number_of_frames": form.frames,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.color_model,
        "planar_configuration": form.planar,
        "bits_allocated": form.allocated,
        "bits_stored": form.allocated if form.shift else form.stored,
        "pixel_representation": int(form.signed),
        "pixel_keyword": form.keyword,
        "allow_excess_frames": True,
        "as_rgb": form.allocated <= 8,
    }


def _decoded(decoder: Any, data: bytes, frame: int, plugin: str, options: dict[str, Any]) -> np.ndarray:
    decoded: np.ndarray
    decoded, _ = decoder.as_array(data, index=frame, decoding_plugin=plugin, **options)
    return decoded


def _to_rgb(values: np.ndarray, form: PixelFormat) -> np.ndarray:
    """RGB of YCbCr values of more than 8 bits, which pydicom does not convert [PS3.3 C.7.6.3.1.2]."""
    half = 2.0 ** (form.stored - 1)
    y, cb, cr = (values[..., at].astype(np.float64) - half * (at > 0) for at in range(3))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.clip(np.rint(rgb), 0, 2 * half - 1).astype(values.dtype)


def _as_item(packed: bytes) -> bytes:
    """One frame as encapsulated pixel data."""
    padded = packed + b"\0" * (len(packed) % 2)
    table = b"\xfe\xff\x00\xe0" + bytes(4)
    return table + b"\xfe\xff\x00\xe0" + len(padded).to_bytes(4, "little") + padded


def _inflate(packed: bytes, size: int, name: str) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
    except zlib.error:
        raise UnreadableImage(name, "a deflated frame that is broken") from None


def _extract_bits(values: np.ndarray, form: PixelFormat) -> np.ndarray:
    """The stored bits of values that are left-justified; unchanged where HighBit is that of other values.

    A file whose bits below the stored ones hold values, and whose highest are empty, states a wrong HighBit.
    """
    unused = values.dtype.itemsize * 8 - form.stored
    if values.dtype.kind not in "iu" or unused < max(1, form.shift):
        return values
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    unsigned = values.view(f"u{values.dtype.itemsize}")
    is_low = int(unsigned.max(initial=0)) < 2**form.stored and bool((unsigned & (2**form.shift - 1)).any())
    is_low = is_low or not form.shift
    bits = unsigned if is_low else unsigned >> form.shift
    return ((bits << unused).view(values.dtype)) >> unused  # the sign, and no other bits
