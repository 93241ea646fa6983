"""Reading of DICOM files and of selected attributes; errors quote no value."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.config import settings
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import VR

from domainclip.data.dicom import attributes, file_faults
from domainclip.data.dicom.pixel_element import PixelData, read_pixel_element
from domainclip.data.dicom.pixel_format import FORMAT_KEYWORDS, PIXEL_KEYWORDS, read_pixel_format
from domainclip.data.dicom.transfer_syntaxes import header_syntax, resolve_syntax, stated_syntax
from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

# pydicom would print invalid values, and a value may be a patient's name.
settings.reading_validation_mode = pydicom.config.IGNORE
for _library in ("pydicom", "pylibjpeg", "openjpeg"):  # nor may a handler of another library log them
    logging.getLogger(_library).propagate = False
logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its lines would break into those of the progress

# The terms of Modality, of those that the standard defines, that are no images [PS3.3 C.7.3.1.1.1].
_OTHER_MODALITY_TERMS = """
    ANN AR ASMT AU CTPROTOCOL DOC ECG EEG EMG EOG EPS FID HC HD KER KO LEN M3D OAM PLAN POS PR REG RESP
    RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SMR SR SRF STAIN TEXTUREMAP TG VA XAPROTOCOL
"""
_OTHER_MODALITIES = frozenset(_OTHER_MODALITY_TERMS.split())
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_HEAD_BYTES = 132  # preamble and "DICM"
_MAX_DEFLATE_RATIO = 1032  # inflated bytes of each deflated one
# The first element of a data set without a preamble: of the file meta information, or of the identification.
_FIRST_GROUPS = (0x0002, 0x0008)
_MAX_FIRST_LENGTH = 256  # bytes of a first value without an explicit type: a UID, or a character set
_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file: a preamble of 128 bytes, then "DICM"; or without preamble."""
    return data[128:132] == b"DICM" or has_no_preamble(data)


def has_no_preamble(data: bytes) -> bool:
    """Whether bytes begin with the first element of a DICOM data set, as files without a preamble do."""
    if len(data) < 8 or data[128:132] == b"DICM":
        return False
    for order in ("<", ">"):
        group, element, length = struct.unpack_from(f"{order}HHI", data)
        if group not in _FIRST_GROUPS or (order == ">" and data[4:6] not in _VRS):
            continue
        tag = group << 16 | element
        if element and not dictionary_has_tag(tag):
            continue
        if data[4:6] in _VRS or length <= _MAX_FIRST_LENGTH:
            return True
    return False


def read_dicom(source: Path | io.BytesIO, name: str, keywords: Sequence[str] | None = None) -> FileDataset:
    """The whole file, or only the attributes `keywords`; then neither pixels nor other attributes are read.

    A file without a preamble is read if it begins like a data set, and one without its last delimiter too.

    Raises: UnreadableImage with the reason, which quotes no value.
    """
    with _open(source, name) as stream:
        return _read_stream(stream, name, keywords)


@contextmanager
def _open(source: Path | io.BytesIO, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, io.BytesIO):
        yield source
        return
    try:
        stream = source.open("rb")
    except OSError as error:
        raise UnreadableImage(name, f"unreadable file ({error.strerror})") from None
    with stream:
        yield stream


def _read_stream(stream: BinaryIO, name: str, keywords: Sequence[str] | None) -> FileDataset:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if not head:
        raise UnreadableImage(name, "empty file")
    if not is_dicom(head):
        raise UnreadableImage(name, "no DICOM preamble")
    file_faults.check_inflated_size(stream, name)
    force, header_only = has_no_preamble(head), keywords is not None
    tags = list(keywords) if keywords is not None else None
    try:
        dataset = pydicom.dcmread(stream, stop_before_pixels=header_only, specific_tags=tags, force=force)
        if header_only or any(word in dataset for word in PIXEL_KEYWORDS):
            return dataset
        return file_faults.read_cut_pixels(stream, name) or dataset
    except UnreadableImage:
        raise
    except EOFError:
        raise UnreadableImage(name, file_faults.broken_at(stream, "cut off")) from None
    except Exception:  # pydicom raises arbitrary exceptions on broken files
        raise UnreadableImage(name, file_faults.broken_at(stream, "broken")) from None


def read_header(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Attributes of an image file as text, by keyword; neither pixels nor other attributes are read.

    `path` is a file, or a location `#offset=…&size=…` of a member of a tar. TransferSyntaxUID and
    NumberOfFrames are those of the pixel data. PatientID defaults to StudyInstanceUID, so that a file without
    a patient has a group.

    Raises: UnreadableImage for a file that is broken or contains no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_header_dataset(path, keywords)
        texts = {keyword: _attribute_text(header.dataset, keyword) for keyword in keywords}
        if "TransferSyntaxUID" in texts:
            texts["TransferSyntaxUID"] = str(header.syntax)
        if texts.get("NumberOfFrames"):
            texts["NumberOfFrames"] = str(header.frames)
        if texts.get("PatientID") == "":
            texts["PatientID"] = _attribute_text(header.dataset, "StudyInstanceUID")
        return texts


@dataclass(frozen=True)
class Header:
    """Some attributes of an image file, and what its pixel data show of them."""

    dataset: FileDataset
    syntax: UID  # the transfer syntax of the pixel data
    frames: int  # NumberOfFrames, at most as many as the pixel data have


def read_header_dataset(path: Path, keywords: Sequence[str]) -> Header:
    """The attributes `keywords` of an image file, besides those that describe its pixels.

    Raises: UnreadableImage for a file that is broken or contains no image.
    """
    needed = [*keywords, *FORMAT_KEYWORDS, "StudyInstanceUID", "SOPClassUID", "Modality"]
    tags = [keyword for keyword in dict.fromkeys(needed) if keyword != "TransferSyntaxUID"]
    with _open(_source(path), str(path)) as stream:
        dataset = _read_stream(stream, str(path), tags)
        if "Rows" not in dataset:
            check_is_image(dataset, str(path))
        syntax = stated_syntax(dataset)
        if syntax == DeflatedExplicitVRLittleEndian:  # which pydicom inflates: the stream is elsewhere
            size = stream.seek(0, io.SEEK_END) * _MAX_DEFLATE_RATIO
            return Header(dataset, syntax, _frames(dataset, PixelData(b"", size), str(path)))
        pixels = read_pixel_element(stream, dataset)
        if pixels.head:
            syntax = resolve_syntax(syntax, header_syntax(dataset), pixels.head)
        return Header(dataset, syntax, _frames(dataset, pixels, str(path)))


def _frames(dataset: FileDataset, pixels: PixelData, name: str) -> int:
    try:
        form = read_pixel_format(dataset, name)
    except UnreadableImage:  # reported when the image is decoded
        return 1
    if pixels.fragments is not None:
        return max(1, min(form.frames, pixels.fragments))
    return max(1, min(form.frames, pixels.length * 8 // form.frame_bits)) if pixels.length else form.frames


def _source(path: Path) -> Path | io.BytesIO:
    fragment = locations.split_location(str(path))[1]
    if "offset" not in fragment:
        return path
    try:
        return io.BytesIO(locations.read_location(str(path)))
    except OSError as error:
        raise UnreadableImage(str(path), f"unreadable file ({error.strerror})") from None


def _attribute_text(dataset: FileDataset, keyword: str) -> str:
    if keyword == "TransferSyntaxUID":  # of the file meta information
        return str(stated_syntax(dataset))
    try:
        value = dataset.get(keyword)
    except Exception:  # a value that its type does not allow
        return "\\".join(attributes.text_values(dataset, keyword))
    if isinstance(value, Items):  # tables: their explanations
        value = [" ".join(attributes.text_values(item, "LUTExplanation")) or "unnamed" for item in value]
    if isinstance(value, bytes):  # of an unknown type
        return "\\".join(attributes.text_values(dataset, keyword))
    if isinstance(value, (MultiValue, list)):
        return "\\".join(str(element).strip() for element in value)  # the separator of DICOM
    return "" if value is None else str(value).strip("\0 \t\r\n")


def check_is_image(dataset: FileDataset, name: str) -> None:
    """Check that a file contains pixels.

    Raises: UnreadableImage; the reason distinguishes a plan or report from an image that was cut off.
    """
    if any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        return
    if _DICOMDIR_CLASS in attributes.text_values(dataset.file_meta, "MediaStorageSOPClassUID"):
        raise UnreadableImage(name, "not an image (DICOMDIR)")
    storage = attributes.uid_name(_attribute_text(dataset, "SOPClassUID"))
    # Modality may contain any text, even a name: only terms of the standard are quoted.
    modality = _attribute_text(dataset, "Modality")
    kind = modality if modality in _OTHER_MODALITIES else storage
    # An image class without pixels was cut off; a plan or a report never had pixels.
    is_cut_off = "Image Storage" in storage or not kind
    raise UnreadableImage(name, "no pixel data" if is_cut_off else f"not an image ({kind})")


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
