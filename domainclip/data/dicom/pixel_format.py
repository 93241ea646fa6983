"""How a file stores its pixels: the attributes of the image pixel module, and what replaces a bad one.

An attribute that follows from others or from the length of the pixel data is not needed, and one that
contradicts them is not used; each is a doubt, which the check of a corpus counts [DICOM PS3.3 C.7.6.3].
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from pydicom.dataset import FileDataset
from pydicom.uid import UID

from domainclip.data.dicom import attributes, transfer_syntaxes
from domainclip.errors import UnreadableImage

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FORMAT_KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames"),
)
GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_UNREAD = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "ARGB", "CMYK", "HSV", "XYB")
_MODELS = {re.sub("[ _]", "", model): model for model in (*GREY, PALETTE, *_COLOUR, *_UNREAD)}
_ALLOCATED = (1, 8, 16, 32, 64)
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_MAX_SIDE = 2**16 - 1


@dataclass(frozen=True)
class PixelFormat:
    """The storage of the pixels of a file."""

    keyword: str  # of the attribute that holds them
    syntax: UID  # "" when it is unknown
    rows: int
    columns: int
    samples: int  # of a pixel: 1 or 3
    color_model: str
    planar: int  # 1: the samples of a colour are together
    allocated: int  # bits of a sample in the file
    stored: int  # of these, bits with a value
    shift: int  # bits below the stored ones
    signed: bool
    frames: int
    doubts: tuple[str, ...] = ()  # attributes that are not used, each with its fault

    @property
    def frame_bits(self) -> int:
        """The length of an uncompressed frame, in bits: those of one bit a pixel need not end with a byte."""
        samples = 2 if self.color_model == "YBR_FULL_422" and self.samples == 3 else self.samples
        return self.rows * self.columns * samples * self.allocated

    @property
    def frame_bytes(self) -> int:
        """The length of an uncompressed frame."""
        return (self.frame_bits + 7) // 8

    @property
    def is_grey(self) -> bool:
        """Whether a pixel is one level of grey, not a colour or an index of a palette."""
        return self.samples == 1 and self.color_model != PALETTE


@dataclass
class _Reader:
    """The attributes of one file, and the doubts about them."""

    dataset: FileDataset
    name: str
    doubts: list[str] = field(default_factory=list)

    def doubt(self, keyword: str, fault: str) -> None:
        self.doubts.append(f"{keyword} ({fault})")

    def required(self, keyword: str) -> int:
        """A positive integer that nothing else can replace.

        Raises: UnreadableImage naming the attribute.
        """
        if not attributes.is_present(self.dataset, keyword):
            raise UnreadableImage(self.name, f"the attribute {keyword} is missing")
        value = attributes.integer(self.dataset, keyword)
        if value is None or not 0 < value <= _MAX_SIDE:
            raise UnreadableImage(self.name, f"the attribute {keyword} is no number from 1 to {_MAX_SIDE}")
        return value

    def optional(self, keyword: str, allowed: range | tuple[int, ...], default: int) -> int:
        """An integer, or what replaces a missing or bad one."""
        value = attributes.integer(self.dataset, keyword)
        if value is not None and value in allowed:
            return value
        present = attributes.is_present(self.dataset, keyword)
        self.doubt(keyword, "not allowed" if present else "missing")
        return default


def read_pixel_format(dataset: FileDataset, name: str) -> PixelFormat:
    """The storage of the pixels; of a dataset without its pixels, as far as its header declares it.

    Raises: UnreadableImage naming the attribute that is missing or not usable.
    """
    reader = _Reader(dataset, name)
    keyword = next((keyword for keyword in PIXEL_KEYWORDS if keyword in dataset), PIXEL_KEYWORDS[0])
    rows, columns = reader.required("Rows"), reader.required("Columns")
    syntax = _syntax(reader)
    color_model = _color_model(reader)
    samples = _samples(reader, color_model)
    length = _native_length(dataset, keyword, syntax)
    allocated, stored = _bits(
        reader, keyword, None if length is None else length // (rows * columns * samples)
    )
    planar = reader.optional("PlanarConfiguration", (0, 1), 0) if samples == 3 else 0
    signed = keyword == "PixelData" and reader.optional("PixelRepresentation", (0, 1), 0) == 1
    form = PixelFormat(
        keyword=keyword,
        syntax=syntax,
        rows=rows,
        columns=columns,
        samples=samples,
        color_model=_consistent_model(color_model, samples),
        planar=planar,
        allocated=allocated,
        stored=stored,
        shift=_shift(reader, allocated, stored) if keyword == "PixelData" else 0,
        signed=signed,
        frames=1,
    )
    frames = _frame_count(reader, form, length)
    return replace(form, frames=frames, doubts=tuple(reader.doubts))


def _syntax(reader: _Reader) -> UID:
    stated = transfer_syntaxes.stated_syntax(reader.dataset)
    syntax = transfer_syntaxes.real_syntax(reader.dataset)
    if not stated:
        reader.doubt("TransferSyntaxUID", "missing")
    if not syntax:
        fault = "contradicts the pixel data" if stated else "is missing"
        raise UnreadableImage(reader.name, f"the attribute TransferSyntaxUID {fault}")
    if stated and syntax != stated:
        reader.doubt("TransferSyntaxUID", "contradicts the pixel data")
    return syntax


def _color_model(reader: _Reader) -> str:
    """The photometric interpretation in the spelling of the standard.

    Raises: UnreadableImage for a missing or unknown one.
    """
    texts = attributes.text_values(reader.dataset, "PhotometricInterpretation")
    if not texts:
        raise UnreadableImage(reader.name, "the attribute PhotometricInterpretation is missing")
    model = _MODELS.get(re.sub(r"[\s_\0-]", "", texts[0].upper()), "")
    if model == "" or model in _UNREAD:
        quoted = f" ({model})" if model else ""
        raise UnreadableImage(
            reader.name, f"a colour model (PhotometricInterpretation) that is not read{quoted}"
        )
    if texts != [model]:
        reader.doubt("PhotometricInterpretation", "not spelt as in the standard")
    return model


def _samples(reader: _Reader, color_model: str) -> int:
    return reader.optional("SamplesPerPixel", (1, 3), 3 if color_model in _COLOUR else 1)


def _consistent_model(color_model: str, samples: int) -> str:
    """A colour model with the number of samples: one sample is grey, three of a grey image are RGB."""
    if samples == 1:
        return "MONOCHROME2" if color_model in _COLOUR else color_model
    return color_model if color_model in _COLOUR else "RGB"


def _native_length(dataset: FileDataset, keyword: str, syntax: UID) -> int | None:
    """The bytes of uncompressed pixels; None for compressed ones, and for a dataset without its pixels."""
    if keyword not in dataset or transfer_syntaxes.is_encapsulated(syntax):
        return None
    return len(attributes.raw_bytes(dataset, keyword))


def _bits(reader: _Reader, keyword: str, sample_bytes: int | None) -> tuple[int, int]:
    """Bits allocated and stored; `sample_bytes` of the file decide where the header contradicts itself."""
    if keyword in _FLOAT_BITS:
        return _FLOAT_BITS[keyword], _FLOAT_BITS[keyword]
    allocated = attributes.integer(reader.dataset, "BitsAllocated")
    stored = attributes.integer(reader.dataset, "BitsStored")
    if stored is None or not 0 < stored <= 64:
        present = attributes.is_present(reader.dataset, "BitsStored")
        reader.doubt("BitsStored", "not allowed" if present else "missing")
        high = attributes.integer(reader.dataset, "HighBit")
        stored = None if high is None or not 0 <= high < 64 else high + 1
    if allocated not in _ALLOCATED:
        if attributes.is_present(reader.dataset, "BitsAllocated"):
            raise UnreadableImage(
                reader.name, f"BitsAllocated is none of {', '.join(map(str, _ALLOCATED[:-1]))} and 64"
            )
        allocated = next((bits for bits in _ALLOCATED if stored and bits >= stored), None)
        if sample_bytes and sample_bytes * 8 in _ALLOCATED:
            allocated = sample_bytes * 8
        if allocated is None:
            raise UnreadableImage(reader.name, "the attribute BitsAllocated is missing")
        reader.doubt("BitsAllocated", "missing")
    if stored is not None and stored > allocated:
        if sample_bytes and stored <= sample_bytes * 8 in _ALLOCATED:
            reader.doubt("BitsAllocated", "fewer than BitsStored")
            return sample_bytes * 8, stored
        reader.doubt("BitsStored", "more than BitsAllocated")
        stored = allocated
    return allocated, stored or allocated


def _shift(reader: _Reader, allocated: int, stored: int) -> int:
    """The bits below the stored ones: 0 unless HighBit states that the values are left-justified."""
    if allocated == 1:
        return 0
    high = reader.optional("HighBit", range(stored - 1, allocated), stored - 1)
    return high - stored + 1


def _frame_count(reader: _Reader, form: PixelFormat, length: int | None) -> int:
    """NumberOfFrames, at most as many as the uncompressed pixels have."""
    declared = 1
    if attributes.is_present(reader.dataset, "NumberOfFrames"):
        declared = reader.optional("NumberOfFrames", range(1, 2**31), 0)
    available = None if length is None else length * 8 // form.frame_bits
    if declared == 0:
        return available or 1
    if available is not None and 0 < available < declared:
        reader.doubt("NumberOfFrames", "more than the pixel data have")
        return available
    return declared
