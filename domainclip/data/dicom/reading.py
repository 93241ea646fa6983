"""Reads DICOM files without saying more of them than was asked."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom
from pydicom.config import settings
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from domainclip.data import places
from domainclip.data.unreadable import UnreadableImage

# pydicom would print values that it finds odd, and a value may be a patient's name.
settings.reading_validation_mode = pydicom.config.IGNORE

_DICOMDIR = "1.2.840.10008.1.3.10"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_WHOLE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_NEEDED = (*_WHOLE, "PhotometricInterpretation")
_OF_INTEGERS = ("BitsStored", "PixelRepresentation")  # which floats do not have


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file: a preamble of 128 bytes, then "DICM"."""
    return data[128:132] == b"DICM"


def read(source: Path | io.BytesIO, name: str, wanted: Sequence[str] | None = None) -> FileDataset:
    """The whole file, or only the attributes that are wanted; then pixels and all others stay on the disk.

    Raises: UnreadableImage with the reason, which quotes no value.
    """
    tags = None if wanted is None else list(wanted)
    try:
        return pydicom.dcmread(source, stop_before_pixels=tags is not None, specific_tags=tags)
    except InvalidDicomError:
        raise UnreadableImage(name, "no DICOM preamble") from None
    except Exception as error:
        raise UnreadableImage(name, f"broken DICOM file ({type(error).__name__})") from None


def header(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Some attributes of an image file as text, by keyword; pixels are not read, nor is any other tag.

    PatientID falls back on StudyInstanceUID, so that a file without a patient still has a group.
    TransferSyntaxUID, which stands before all others, may be asked for as well.

    Raises: UnreadableImage for a file that is broken or holds no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [*keywords, "StudyInstanceUID", "SOPClassUID", "Modality", "Rows"]
        dataset = read(path, str(path), [word for word in wanted if word != "TransferSyntaxUID"])
        if "Rows" not in dataset:
            refuse_non_image(dataset, str(path))
        try:
            found = {keyword: _text(dataset, keyword) for keyword in keywords}
        except Exception as error:
            raise UnreadableImage(str(path), f"broken DICOM header ({type(error).__name__})") from None
        if found.get("PatientID") == "":
            found["PatientID"] = str(dataset.get("StudyInstanceUID") or "")
        return found


def _text(dataset: FileDataset, keyword: str) -> str:
    if keyword == "TransferSyntaxUID":
        return str(dataset.file_meta.get(keyword) or "")
    value = dataset.get(keyword)
    if isinstance(value, Items):  # tables: what each is for
        value = [item.get("LUTExplanation") or "unnamed" for item in value]
    if isinstance(value, (MultiValue, list)):
        return "\\".join(str(one).strip() for one in value)  # as the file itself separates them
    return "" if value is None else str(value).strip()


def refuse_non_image(dataset: FileDataset, name: str) -> None:
    """Stops at a file that holds no pixels.

    Raises: UnreadableImage, which tells a plan or a report from an image that was cut off.
    """
    if any(keyword in dataset for keyword in PIXELS):
        return
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise UnreadableImage(name, "not an image (DICOMDIR)")
    storage = UID(str(dataset.get("SOPClassUID") or "")).name
    kind = str(dataset.get("Modality") or storage)
    if not re.fullmatch("[A-Z0-9_ ]{2,16}|[A-Z][A-Za-z0-9 -]{2,63}", kind):
        kind = ""  # in a broken file any text may stand here, a name as well as a modality
    # An image class without pixels was cut off; a plan or a report never had any.
    broken = "Image Storage" in storage or not kind
    raise UnreadableImage(name, "no pixel data" if broken else f"not an image ({kind})")


def refuse_incomplete(dataset: FileDataset, name: str) -> None:
    """Stops at an image whose header does not say how its pixels are stored.

    Raises: UnreadableImage naming the attribute.
    """
    for keyword in (*_NEEDED, *(_OF_INTEGERS if "PixelData" in dataset else ())):
        element = dataset.get(keyword)
        if element is None or element == "":
            raise UnreadableImage(name, f"the attribute {keyword} is missing")
    for keyword in (*_WHOLE, "NumberOfFrames"):
        try:
            int(dataset.get(keyword) or 1)
        except (TypeError, ValueError):
            raise UnreadableImage(name, f"the attribute {keyword} is no number") from None
    if not dataset.file_meta.get("TransferSyntaxUID"):
        raise UnreadableImage(name, "the attribute TransferSyntaxUID is missing")


def burned_in(paths: Iterable[Path | str]) -> dict[str, int]:
    """How many image files say YES, NO or nothing ("absent") of text burned into their pixels.

    Most archives never fill in BurnedInAnnotation: absent is not NO.
    """
    counted = Counter({"YES": 0, "NO": 0, "absent": 0})
    for path in dict.fromkeys(places.split(str(path))[0] for path in paths):  # a file of several views once
        try:
            said = header(Path(path), ["BurnedInAnnotation"])["BurnedInAnnotation"].upper()
        except UnreadableImage:
            continue
        counted[said if said in ("YES", "NO") else "absent"] += 1
    return dict(counted)
