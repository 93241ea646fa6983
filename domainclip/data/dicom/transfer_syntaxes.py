"""The transfer syntax of a file: the one it states, and the one its pixel data have [DICOM PS3.5 §10, A]."""

from __future__ import annotations

from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from domainclip.data.dicom.attributes import raw_bytes, uid_name
from domainclip.data.dicom.codestream import Codestream, read_codestream

# Frames of raw deflate data [PS3.5 A.4.13]; decoded by Python's zlib.
DEFLATED_FRAME = UID("1.2.840.10008.1.2.8.1")
_ITEM = b"\xfe\xff\x00\xe0"  # begins encapsulated pixel data
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
_HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_HEAD_BYTES = 2**17  # of the pixel data: a table of offsets and the header of the first frame
# By the kind of a stream: the syntaxes that it may be stated as, the usual one first.
_OF_KIND = {
    "baseline": (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    "extended": (uid.JPEGExtended12Bit,),
    "lossless": (uid.JPEGLossless, uid.JPEGLosslessSV1),
    "JPEG-LS": (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    "JPEG 2000": (*_JPEG_2000, *_HTJ2K),
    "HTJ2K": _HTJ2K,
    "RLE": (uid.RLELossless,),
}
_WITH_HEADER = frozenset(syntax for syntaxes in _OF_KIND.values() for syntax in syntaxes)
_NAMES = {DEFLATED_FRAME: "Deflated Image Frame"}


def syntax_name(syntax: str) -> str:
    """The name of a registered transfer syntax, else a text that quotes nothing of the file."""
    if not syntax:
        return "none given"
    return _NAMES.get(UID(syntax)) or uid_name(syntax) or "not a registered transfer syntax"


def is_encapsulated(syntax: UID) -> bool:
    """Whether pixels are stored in items, one or more for each frame."""
    return syntax not in NATIVE


def stated_syntax(dataset: FileDataset) -> UID:
    """TransferSyntaxUID without padding; "" if it is missing."""
    try:
        value = dataset.file_meta.get("TransferSyntaxUID")
    except Exception:  # a value that pydicom cannot convert
        value = None
    return UID(str(value or "").strip("\0 "))


def real_syntax(dataset: FileDataset) -> UID:
    """The stated syntax, or the one that the form of the pixel data shows; "" if neither is usable.

    A dataset without its pixels has the stated one, or that in which its header was read.
    """
    stated = stated_syntax(dataset)
    data = raw_bytes(dataset, "PixelData")
    if not data:
        return stated or header_syntax(dataset)
    return resolve_syntax(stated, header_syntax(dataset), data[:_HEAD_BYTES])


def resolve_syntax(stated: UID, of_header: UID, head: bytes) -> UID:
    """The syntax of pixel data that begin with the bytes `head`; see `real_syntax`."""
    if stated and not uid_name(stated) and stated != DEFLATED_FRAME:
        return stated  # unknown to the standard, and refused by the decoder
    if not head.startswith(_ITEM):
        return stated if stated and not is_encapsulated(stated) else of_header if head else stated
    kind = first_codestream(head).kind
    possible = _OF_KIND.get(kind, ())
    if stated in possible or (not possible and stated and is_encapsulated(stated)):
        return stated
    if possible and (not stated or stated in NATIVE or stated in _WITH_HEADER):
        return possible[0]
    return UID("") if stated in NATIVE else stated


def first_codestream(pixel_data: bytes) -> Codestream:
    """The header of the first fragment of encapsulated pixel data; the beginning of the data is enough."""
    start = 8 + int.from_bytes(pixel_data[4:8], "little")  # after the table of offsets
    return (
        read_codestream(pixel_data[start + 8 :]) if pixel_data[start : start + 4] == _ITEM else Codestream()
    )


def header_syntax(dataset: FileDataset) -> UID:
    """The uncompressed syntax in which the attributes themselves are encoded."""
    implicit, little_endian = dataset.original_encoding
    if little_endian is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
