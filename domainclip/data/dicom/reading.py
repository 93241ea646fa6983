"""Reading of DICOM files and of selected attributes; errors quote no value."""

from __future__ import annotations

import io
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom
from pydicom.config import settings
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

# pydicom would print invalid values, and a value may be a patient's name.
settings.reading_validation_mode = pydicom.config.IGNORE

# Every term that the standard defines for Modality, the retired ones last [PS3.3 C.7.3.1.1.1].
_MODALITY_TERMS = """
    ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL
    IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG
    RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN
    TEXTUREMAP TG US VA XA XAPROTOCOL XC
    AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF
"""
_MODALITIES = frozenset(_MODALITY_TERMS.split())
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
MAX_INFLATED = 3 * 89_478_485  # bytes of a deflated file: the largest image that is decoded, in colour
_CHUNK_BYTES = 2**20
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_INTEGER_KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_REQUIRED_KEYWORDS = (*_INTEGER_KEYWORDS, "PhotometricInterpretation")
_INTEGER_PIXEL_KEYWORDS = ("BitsStored", "PixelRepresentation")  # absent for floats


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file: a preamble of 128 bytes, then "DICM"."""
    return data[128:132] == b"DICM"


def read_dicom(source: Path | io.BytesIO, name: str, keywords: Sequence[str] | None = None) -> FileDataset:
    """The whole file, or only the attributes `keywords`; then neither pixels nor other attributes are read.

    Raises: UnreadableImage with the reason, which quotes no value.
    """
    tags = None if keywords is None else list(keywords)
    _check_inflated_size(source, name)
    try:
        return pydicom.dcmread(source, stop_before_pixels=tags is not None, specific_tags=tags)
    except InvalidDicomError:
        raise UnreadableImage(name, "no DICOM preamble") from None
    except Exception as error:
        raise UnreadableImage(name, f"broken DICOM file ({type(error).__name__})") from None


def _check_inflated_size(source: Path | io.BytesIO, name: str) -> None:
    """Refuse a deflated file that would fill the memory: pydicom inflates it without a limit.

    Raises: UnreadableImage.
    """
    try:
        # BytesIO shares the bytes, it does not copy them.
        with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else source.open("rb") as stream:
            read_preamble(stream, force=False)
            meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
                return
            inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
            deflated = stream.read(_CHUNK_BYTES)
            while deflated and not inflater.eof and size <= MAX_INFLATED:
                before = deflated
                inflated = len(inflater.decompress(deflated, _CHUNK_BYTES))  # dropped at once
                size += inflated
                deflated = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
                if not inflated and deflated == before:  # no progress: the stream is broken
                    break
    except Exception:  # pydicom reports broken files
        return
    if size > MAX_INFLATED:
        raise UnreadableImage(name, "decompression bomb")


def read_header(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Attributes of an image file as text, by keyword; neither pixels nor other attributes are read.

    `path` is a file, or a location `#offset=…&size=…` of a member of a tar. TransferSyntaxUID, of the file
    meta information, is allowed too. PatientID defaults to StudyInstanceUID, so that a file without a patient
    has a group.

    Raises: UnreadableImage for a file that is broken or contains no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        needed = [*keywords, "StudyInstanceUID", "SOPClassUID", "Modality", "Rows"]
        dataset = read_dicom(
            _source(path), str(path), [keyword for keyword in needed if keyword != "TransferSyntaxUID"]
        )
        if "Rows" not in dataset:
            check_is_image(dataset, str(path))
        try:
            attributes = {keyword: _attribute_text(dataset, keyword) for keyword in keywords}
        except Exception as error:
            raise UnreadableImage(str(path), f"broken DICOM header ({type(error).__name__})") from None
        if attributes.get("PatientID") == "":
            attributes["PatientID"] = str(dataset.get("StudyInstanceUID") or "")
        return attributes


def _source(path: Path) -> Path | io.BytesIO:
    fragment = locations.split_location(str(path))[1]
    if "offset" not in fragment:
        return path
    try:
        return io.BytesIO(locations.read_location(str(path)))
    except OSError as error:
        raise UnreadableImage(str(path), f"unreadable file ({error.strerror})") from None


def _attribute_text(dataset: FileDataset, keyword: str) -> str:
    if keyword == "TransferSyntaxUID":
        return str(dataset.file_meta.get(keyword) or "")
    value = dataset.get(keyword)
    if isinstance(value, Items):  # tables: their explanations
        value = [item.get("LUTExplanation") or "unnamed" for item in value]
    if isinstance(value, (MultiValue, list)):
        return "\\".join(str(element).strip() for element in value)  # the separator of DICOM
    return "" if value is None else str(value).strip()


def check_is_image(dataset: FileDataset, name: str) -> None:
    """Check that a file contains pixels.

    Raises: UnreadableImage; the reason distinguishes a plan or report from an image that was cut off.
    """
    if any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        return
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR_CLASS:
        raise UnreadableImage(name, "not an image (DICOMDIR)")
    uid = str(dataset.get("SOPClassUID") or "")
    storage = "" if UID(uid).name == uid else UID(uid).name  # pydicom's name; unknown classes have none
    # Modality may contain any text, even a name: only terms of the standard are quoted.
    modality = str(dataset.get("Modality") or "")
    kind = modality if modality in _MODALITIES else storage
    # An image class without pixels was cut off; a plan or a report never had pixels.
    is_cut_off = "Image Storage" in storage or not kind
    raise UnreadableImage(name, "no pixel data" if is_cut_off else f"not an image ({kind})")


def check_pixel_attributes(dataset: FileDataset, name: str) -> None:
    """Check that the attributes that describe the storage of the pixels exist.

    Raises: UnreadableImage naming the missing attribute.
    """
    for keyword in (*_REQUIRED_KEYWORDS, *(_INTEGER_PIXEL_KEYWORDS if "PixelData" in dataset else ())):
        element = dataset.get(keyword)
        if element is None or element == "":
            raise UnreadableImage(name, f"the attribute {keyword} is missing")
    for keyword in (*_INTEGER_KEYWORDS, "NumberOfFrames"):
        try:
            int(dataset.get(keyword) or 1)
        except (TypeError, ValueError):
            raise UnreadableImage(name, f"the attribute {keyword} is no number") from None
    if not dataset.file_meta.get("TransferSyntaxUID"):
        raise UnreadableImage(name, "the attribute TransferSyntaxUID is missing")


def count_burned_in(paths: Iterable[Path | str]) -> dict[str, int]:
    """The numbers of image files whose BurnedInAnnotation is YES, NO or "absent".

    Most archives never set it: absent does not mean NO. A file of several views is counted once.
    """
    file_counts = Counter({"YES": 0, "NO": 0, "absent": 0})
    for file in dict.fromkeys(locations.resolve_location(str(path)) for path in paths):
        try:
            value = read_header(Path(file), ["BurnedInAnnotation"])["BurnedInAnnotation"].upper()
        except UnreadableImage:
            continue
        file_counts[value if value in ("YES", "NO") else "absent"] += 1
    return dict(file_counts)
