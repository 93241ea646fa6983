"""Reads DICOM files without saying more of them than was asked."""

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

# pydicom would print values that it finds odd, and a value may be a patient's name.
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
MAX_INFLATED = 3 * 89_478_485  # bytes of a deflated file: the largest picture that is read, in colour
_CHUNK_BYTES = 2**20
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_INTEGER_KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_REQUIRED_KEYWORDS = (*_INTEGER_KEYWORDS, "PhotometricInterpretation")
_INTEGER_PIXEL_KEYWORDS = ("BitsStored", "PixelRepresentation")  # which floats do not have


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file: a preamble of 128 bytes, then "DICM"."""
    return data[128:132] == b"DICM"


def read_dicom(source: Path | io.BytesIO, name: str, wanted: Sequence[str] | None = None) -> FileDataset:
    """The whole file, or only the attributes that are wanted; then pixels and all others stay on the disk.

    Raises: UnreadableImage with the reason, which quotes no value.
    """
    tags = None if wanted is None else list(wanted)
    _check_inflated_size(source, name)
    try:
        return pydicom.dcmread(source, stop_before_pixels=tags is not None, specific_tags=tags)
    except InvalidDicomError:
        raise UnreadableImage(name, "no DICOM preamble") from None
    except Exception as error:
        raise UnreadableImage(name, f"broken DICOM file ({type(error).__name__})") from None


def _check_inflated_size(source: Path | io.BytesIO, name: str) -> None:
    """Stops at a deflated file that would fill the memory, for pydicom inflates whatever there is."""
    try:
        # Bytes in memory are shared by this, not copied.
        with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else source.open("rb") as stream:
            read_preamble(stream, force=False)
            meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
                return
            inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
            packed = stream.read(_CHUNK_BYTES)
            while packed and not inflater.eof and size <= MAX_INFLATED:
                before = packed
                given = len(inflater.decompress(packed, _CHUNK_BYTES))  # never held
                size += given
                packed = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
                if not given and packed == before:  # nothing in, nothing out: there is no more
                    break
    except Exception:  # what is broken is told of by pydicom itself
        return
    if size > MAX_INFLATED:
        raise UnreadableImage(name, "decompression bomb")


def read_header(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Some attributes of an image file as text, by keyword; pixels are not read, nor is any other tag.

    A file may be a member of a tar, by `#offset=…&size=…` behind the path.

    PatientID falls back on StudyInstanceUID, so that a file without a patient still has a group.
    TransferSyntaxUID, which stands before all others, may be asked for as well.

    Raises: UnreadableImage for a file that is broken or holds no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [*keywords, "StudyInstanceUID", "SOPClassUID", "Modality", "Rows"]
        dataset = read_dicom(
            _source(path), str(path), [word for word in wanted if word != "TransferSyntaxUID"]
        )
        if "Rows" not in dataset:
            check_is_image(dataset, str(path))
        try:
            found = {keyword: _attribute_text(dataset, keyword) for keyword in keywords}
        except Exception as error:
            raise UnreadableImage(str(path), f"broken DICOM header ({type(error).__name__})") from None
        if found.get("PatientID") == "":
            found["PatientID"] = str(dataset.get("StudyInstanceUID") or "")
        return found


def _source(path: Path) -> Path | io.BytesIO:
    inside = locations.split_location(str(path))[1]
    if "offset" not in inside:
        return path
    try:
        return io.BytesIO(locations.read_location(str(path)))
    except OSError as error:
        raise UnreadableImage(str(path), f"unreadable file ({error.strerror})") from None


def _attribute_text(dataset: FileDataset, keyword: str) -> str:
    if keyword == "TransferSyntaxUID":
        return str(dataset.file_meta.get(keyword) or "")
    value = dataset.get(keyword)
    if isinstance(value, Items):  # tables: what each is for
        value = [item.get("LUTExplanation") or "unnamed" for item in value]
    if isinstance(value, (MultiValue, list)):
        return "\\".join(str(one).strip() for one in value)  # as the file itself separates them
    return "" if value is None else str(value).strip()


def check_is_image(dataset: FileDataset, name: str) -> None:
    """Stops at a file that holds no pixels.

    Raises: UnreadableImage, which tells a plan or a report from an image that was cut off.
    """
    if any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        return
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR_CLASS:
        raise UnreadableImage(name, "not an image (DICOMDIR)")
    uid = str(dataset.get("SOPClassUID") or "")
    storage = "" if UID(uid).name == uid else UID(uid).name  # pydicom's own name; unknown ones have none
    # Any text may stand here, a name as well as a modality: what the standard does not define is not quoted.
    modality = str(dataset.get("Modality") or "")
    kind = modality if modality in _MODALITIES else storage
    # An image class without pixels was cut off; a plan or a report never had any.
    broken = "Image Storage" in storage or not kind
    raise UnreadableImage(name, "no pixel data" if broken else f"not an image ({kind})")


def check_pixel_attributes(dataset: FileDataset, name: str) -> None:
    """Stops at an image whose header does not say how its pixels are stored.

    Raises: UnreadableImage naming the attribute.
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
    """How many image files say YES, NO or nothing ("absent") of text burned into their pixels.

    Most archives never fill in BurnedInAnnotation: absent is not NO.
    """
    counted = Counter({"YES": 0, "NO": 0, "absent": 0})
    for path in dict.fromkeys(
        locations.resolve_location(str(path)) for path in paths
    ):  # a file of several views once
        try:
            said = read_header(Path(path), ["BurnedInAnnotation"])["BurnedInAnnotation"].upper()
        except UnreadableImage:
            continue
        counted[said if said in ("YES", "NO") else "absent"] += 1
    return dict(counted)
