"""DICOM files of less common kinds: colour, encodings, enhanced files, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.data.made_corpora import dicom_file


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
