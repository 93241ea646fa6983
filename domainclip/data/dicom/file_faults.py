"""Files that are cut off, broken, or deflated to an attack: what can be read of them, and the reasons."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import BinaryIO

import pydicom
from pydicom.dataset import FileDataset
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from domainclip.data.dicom.attributes import attribute_name, raw_bytes
from domainclip.data.dicom.pixel_element import read_pixel_element
from domainclip.errors import UnreadableImage

MAX_INFLATED = 3 * 89_478_485  # bytes of a deflated file: the largest image that is decoded, in colour
_CHUNK_BYTES = 2**20
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # ends encapsulated pixel data


def read_cut_pixels(stream: BinaryIO, name: str) -> FileDataset | None:
    """A file of which pydicom dropped everything, for its compressed pixel data lack their last delimiter.

    None for a file without pixel data.

    Raises: UnreadableImage if more than the delimiter is missing.
    """
    stream.seek(0)
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    if "Rows" not in header or not read_pixel_element(stream, header).head:
        return None
    stream.seek(0)
    dataset = pydicom.dcmread(io.BytesIO(stream.read() + _DELIMITER), force=True)
    if "PixelData" not in dataset or not _are_whole_items(raw_bytes(dataset, "PixelData")):
        raise UnreadableImage(name, "pixel data cut off")
    return dataset


def _are_whole_items(data: bytes) -> bool:
    """Whether encapsulated pixel data end with the end of an item."""
    position = 0
    while position + 8 <= len(data):
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
    return position == len(data)


def broken_at(stream: BinaryIO, how: str) -> str:
    """A reason with the attribute at which reading stops."""
    last: list[int] = []

    def note(tag: int, vr: str | None, length: int) -> bool:
        last.append(int(tag))
        return False

    with suppress(Exception):
        stream.seek(0)
        read_partial(stream, stop_when=note, force=True)
    where = f" at {attribute_name(last[-1])}" if last else " in its file meta information"
    return f"DICOM file {how}{where}"


def check_inflated_size(stream: BinaryIO, name: str) -> None:
    """Refuse a deflated file that would fill the memory: pydicom inflates it without a limit.

    Raises: UnreadableImage.
    """
    size = 0
    with suppress(Exception):  # pydicom reports broken files
        size = _inflated_size(stream)
    stream.seek(0)
    if size > MAX_INFLATED:
        raise UnreadableImage(name, "decompression bomb")


def _inflated_size(stream: BinaryIO) -> int:
    """The bytes of a deflated data set, counted until they are too many; 0 for another transfer syntax."""
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return 0
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    deflated = stream.read(_CHUNK_BYTES)
    while deflated and not inflater.eof and size <= MAX_INFLATED:
        before = deflated
        inflated = len(inflater.decompress(deflated, _CHUNK_BYTES))  # dropped at once
        size += inflated
        deflated = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
        if not inflated and deflated == before:  # no progress: the stream is broken
            break
    return size
