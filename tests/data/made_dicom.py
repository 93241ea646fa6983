"""DICOM files of less common kinds: colour, encodings, enhanced files, reports."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.data.made_corpora import dicom_file

_CT = {
    **{"Rows": 2, "Columns": 3, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
    **{"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0},
}
MISSING = object()  # in place of a value: no such attribute


# A ramp of 12 × 16 pixels, modulo 4096, as JPEG of 12 bits (process 4, quality 95), by libjpeg-turbo, which
# decodes to within 1 of it.
JPEG_12 = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoK"
    "BggLDAsKDAkKCgr/wQALDAAMABABAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADf/EACQQAAACCAcAAAAAAAAAAAAAAAAMAggJCiYnKFU4"
    "QkRhYmNz/9oACAEBAAA/ADQMjYOruD+XFi0nlsGSAjYOruD+XFi0nlsCsYjYM8VWqP4EsWdHq4hkgI2DPFVqj+BLFnR6uI//2Q=="
)
# An item with a stream that no decoder knows.
COMPRESSED = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\4\0\0\0????"


def dataset_in_memory(
    pixels: int | bytes = 12,
    syntax: str = uid.ExplicitVRLittleEndian,
    keyword: str = "PixelData",
    **attributes: Any,
) -> FileDataset:
    """A CT image of 2 × 3 pixels; of its pixel data, the length or the bytes."""
    encoding = {"is_implicit_VR": False, "is_little_endian": True}
    dataset = FileDataset("a.dcm", {}, file_meta=FileMetaDataset(), **encoding)
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in {**_CT, **attributes}.items():
        if value is not MISSING and isinstance(value, tuple):
            dataset.add_new(name, *value)  # with a VR that the standard does not allow
        elif value is not MISSING:
            setattr(dataset, name, value)
    if pixels:
        data = bytes(pixels) if isinstance(pixels, int) else pixels
        dataset.add_new(keyword, "OW" if keyword == "PixelData" else "OF", data)
    return dataset


def colour_file(path: Path, stored: np.ndarray, **attributes: Any) -> Path:
    """RGB of 8 or 16 bits from (rows, columns, 3) values."""
    keys = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsStored": stored.dtype.itemsize * 8, "HighBit": stored.dtype.itemsize * 8 - 1}
    return dicom_file(path, stored, **{**keys, **bits, **attributes})


def encapsulated(path: Path, like: Path, syntax: UID, frames: list[bytes], **attributes: Any) -> Path:
    """The file `like` with compressed frames in place of its pixels."""
    dataset = pydicom.dcmread(like)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    # Forced, since pydicom does not know the newest transfer syntaxes.
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    return path


def by_gdcm(path: Path, like: Path, syntax: str) -> Path:
    """The file `like` compressed by GDCM; `syntax` is GDCM's name of the transfer syntax."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(like))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    return path


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def table_item(first: int, depth: int, entries: list[int], **attributes: Any) -> Dataset:
    """A lookup table."""
    dataset = item(LUTDescriptor=[len(entries), first, depth], LUTData=entries, **attributes)
    dataset["LUTData"].VR = "US"
    return dataset


def text_item(name: str, value: str, **attributes: Any) -> Dataset:
    """A TEXT of a structured report."""
    defaults = {"ValueType": "TEXT", "RelationshipType": "CONTAINS", "TextValue": value}
    return item(ConceptNameCodeSequence=[item(CodeMeaning=name)], **{**defaults, **attributes})


def container(name: str, *below: Dataset) -> Dataset:
    """A section of a structured report."""
    defaults = {"ValueType": "CONTAINER", "RelationshipType": "CONTAINS", "ContentSequence": list(below)}
    return item(**defaults, ConceptNameCodeSequence=[item(CodeMeaning=name)])


def report_file(path: Path, study: str, *content: Dataset, **attributes: Any) -> Path:
    """A structured report of a study."""
    defaults = {"SOPClassUID": pydicom.uid.BasicTextSRStorage, "Modality": "SR", "StudyInstanceUID": study}
    return dicom_file(path, None, **{**defaults, "ContentSequence": list(content), **attributes})
