"""Stored values of one frame, decoded by a library under a permissive licence [DICOM PS3.5 §8, A.4]."""

from __future__ import annotations

import zlib

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID

from domainclip.data.dicom import codestream_size, decoders
from domainclip.errors import UnreadableImage


def read_stored_values(dataset: FileDataset, name: str, frame: int) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3) stored values, colour as RGB; other frames are not decoded.

    Raises: UnreadableImage; for a missing decoder, with the command that installs it.
    """
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    bits = int(dataset.get("BitsStored") or 8)
    if syntax == decoders.DEFLATED_FRAME:
        return _inflate_frame(dataset, frame)
    try:
        get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImage(name, f"unknown transfer syntax ({syntax.name or 'none given'})") from None
    if not decoders.find_plugin(syntax, bits):
        raise UnreadableImage(name, f"no decoder for {syntax.name}: {decoders.remedy(syntax, bits)}")
    if syntax.is_encapsulated:
        _check_codestream_size(dataset, name, frame)
    for plugin in decoders.permissive_plugins(syntax, bits) or ("",):
        if plugin and plugin not in get_decoder(syntax).available_plugins:
            continue
        try:
            decoded: np.ndarray = pixel_array(
                _readable_by_gdcm(dataset, bits), index=frame, decoding_plugin=plugin
            )
            return decoded
        except RuntimeError:  # pydicom turns every exception of a plugin into this
            continue
        except ValueError as error:
            if "less than expected" in str(error):
                raise UnreadableImage(name, "pixel data cut off") from None
            raise
    raise UnreadableImage(name, f"{syntax.name} data that no installed decoder can read")


def _check_codestream_size(dataset: FileDataset, name: str, frame: int) -> None:
    """Refuse a stream with more pixels than the header declares, before a decoder allocates memory.

    Raises: UnreadableImage.
    """
    try:
        packed = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    except Exception:  # the decoder reports broken data
        return
    if codestream_size.pixel_count(packed) > int(dataset.Rows) * int(dataset.Columns):
        raise UnreadableImage(name, "compressed data of more pixels than its header says")


def _readable_by_gdcm(dataset: FileDataset, bits: int) -> FileDataset:
    """The dataset with a transfer syntax that pydicom allows GDCM to decode."""
    if dataset.file_meta.TransferSyntaxUID != uid.JPEGExtended12Bit or bits <= 8:
        return dataset
    # GDCM reads the JPEG process from the stream and decodes 12 bits; pydicom refuses by the syntax alone.
    # Checked against libjpeg-turbo.
    renamed = FileDataset(None, dataset, file_meta=Dataset())
    renamed.file_meta.update(dataset.file_meta)
    renamed.file_meta.TransferSyntaxUID = uid.JPEGLossless
    return renamed


def _inflate_frame(dataset: FileDataset, frame: int) -> np.ndarray:
    """The values of a frame compressed as raw deflate data without a header [PS3.5 A.4.13]."""
    packed = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    samples = int(dataset.SamplesPerPixel)
    size = (int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) + 7) // 8
    uncompressed = FileDataset(None, dataset, file_meta=Dataset())
    uncompressed.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    uncompressed.NumberOfFrames = 1
    # At most the size in the header is inflated, however much a hostile stream contains.
    uncompressed.PixelData = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
    values: np.ndarray = pixel_array(uncompressed, index=0)
    return values
