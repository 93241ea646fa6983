"""The display attributes of a file: rescale, windows, tables and padding, as far as they are usable.

One that is not usable is left out, so that it does not cost the image, and is a doubt, which the check of a
corpus counts [DICOM PS3.3 C.7.5.1.1.2, C.11.1, C.11.2].
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from domainclip.data.dicom import attributes
from domainclip.data.dicom.lookup_tables import LookupTable, read_lookup_table

DISPLAY_KEYWORDS = (
    *("Modality", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth"),
    *("WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence", "PresentationLUTSequence"),
    *("PresentationLUTShape", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MIN_WIDTH = {"LINEAR": 1.0}  # of other functions: above 0
_NO_NUMBER, _NOT_ALLOWED = "no number", "not allowed"


@dataclass(frozen=True)
class Window:
    """A linear or sigmoid window."""

    centre: float
    width: float
    function: str  # LINEAR, LINEAR_EXACT, SIGMOID
    origin: str  # "preset lung", "1 of 2"; "" for the only window of a file

    def __str__(self) -> str:
        shape = "" if self.function == "LINEAR" else f" {self.function.lower()}"
        origin = f" ({self.origin})" if self.origin else ""
        return f"window {self.centre:g}/{self.width:g}{shape}{origin}"


@dataclass(frozen=True)
class Display:
    """The display attributes of a file, or of one of its frames."""

    modality: str = ""
    rescale: tuple[float, float] | None = None  # slope and intercept
    modality_table: LookupTable | None = None
    voi_tables: tuple[LookupTable | None, ...] = ()  # None: not usable
    windows: tuple[Window | None, ...] = ()
    explanations: tuple[str, ...] = ()  # of the tables, then of the windows
    presentation_table: LookupTable | None = None
    is_inverse: bool = False
    padding: tuple[float, float] | None = None  # the lowest and the highest value of padding
    doubts: tuple[str, ...] = ()  # attributes that are not used, each with its fault


@dataclass
class _Reader:
    """The attributes of one file, and the doubts about them."""

    dataset: Dataset
    doubts: list[str] = field(default_factory=list)

    def doubt(self, keyword: str, fault: str) -> None:
        self.doubts.append(f"{keyword} ({fault})")

    def number(self, keyword: str) -> float | None:
        """A number; None if it is absent, or not usable."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def numbers(self, keyword: str) -> list[float | None]:
        """The numbers of an attribute; None for those that are not usable."""
        texts = attributes.text_values(self.dataset, keyword)
        values = [attributes.parse_number(text) for text in texts]
        if None in values:
            self.doubt(keyword, _NO_NUMBER)
        elif attributes.has_decimal_comma(texts):
            self.doubt(keyword, "decimal comma, read as a point")
        return values

    def tables(self, keyword: str) -> tuple[LookupTable | None, ...]:
        """The tables of a sequence; None for one that is not usable."""
        items = attributes.items(self.dataset, keyword)
        tables = tuple(read_lookup_table(item, self.dataset) for item in items)
        if None in tables or (not items and attributes.text_values(self.dataset, keyword)):
            self.doubt(keyword, "no usable table")
        return tables


def read_display(dataset: Dataset, padding_prefix: str = "") -> Display:
    """The display attributes at the top level of a dataset.

    `padding_prefix` is "Float" or "DoubleFloat" where the pixels are such numbers.
    """
    reader = _Reader(dataset)
    voi_tables = reader.tables("VOILUTSequence")
    windows = _windows(reader)
    names = [_explanation(item) for item in attributes.items(dataset, "VOILUTSequence")]
    shape = _first(dataset, "PresentationLUTShape").upper()
    if shape not in ("", "IDENTITY", "INVERSE"):
        reader.doubt("PresentationLUTShape", _NOT_ALLOWED)
    return Display(
        modality=_first(dataset, "Modality"),
        modality_table=next(iter(reader.tables("ModalityLUTSequence")), None),
        rescale=_rescale(reader),
        voi_tables=voi_tables,
        windows=windows,
        explanations=(*names, *_window_explanations(dataset, len(windows))),
        presentation_table=next(iter(reader.tables("PresentationLUTSequence")), None),
        is_inverse=shape == "INVERSE",
        padding=_padding(reader, padding_prefix),
        doubts=tuple(dict.fromkeys(reader.doubts)),
    )


def _first(dataset: Dataset, keyword: str) -> str:
    return next(iter(attributes.text_values(dataset, keyword)), "")


def _explanation(item: Dataset) -> str:
    return _first(item, "LUTExplanation")


def _window_explanations(dataset: Dataset, count: int) -> list[str]:
    names = attributes.text_values(dataset, "WindowCenterWidthExplanation")
    return [*names, *[""] * count][:count]


def _rescale(reader: _Reader) -> tuple[float, float] | None:
    """Slope and intercept; None unless the file has both, or one that the other was replaced for."""
    present = [
        bool(attributes.text_values(reader.dataset, keyword))
        for keyword in ("RescaleSlope", "RescaleIntercept")
    ]
    slope, intercept = reader.number("RescaleSlope"), reader.number("RescaleIntercept")
    if slope == 0:
        reader.doubt("RescaleSlope", "0")
        slope = None
    if not all(present) or (slope is None and intercept is None):
        return None
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _windows(reader: _Reader) -> tuple[Window | None, ...]:
    """The windows of a file in its order; None for one that is not usable, such as those of width 0."""
    centres, widths = reader.numbers("WindowCenter"), reader.numbers("WindowWidth")
    count = min(len(centres), len(widths))
    if len(centres) != len(widths):
        reader.doubt("WindowWidth" if len(widths) < len(centres) else "WindowCenter", "fewer values")
    function = _function(reader) if count else "LINEAR"
    windows: list[Window | None] = []
    for i, (centre, width) in enumerate(zip(centres, widths, strict=False), start=1):
        if width is not None and not _MIN_WIDTH.get(function, 1e-12) <= width:
            reader.doubt("WindowWidth", f"below {1 if function == 'LINEAR' else 0}")
            width = None
        usable = centre is not None and width is not None
        origin = f"{i} of {count}" if count > 1 else ""
        windows.append(Window(centre, width, function, origin) if usable else None)  # type: ignore[arg-type]
    return tuple(windows)


def _function(reader: _Reader) -> str:
    """The VOI LUT Function; LINEAR, the default of the standard, for several values or an unknown one."""
    values = [text.upper() for text in attributes.text_values(reader.dataset, "VOILUTFunction")]
    if not values:
        return "LINEAR"
    known = list(dict.fromkeys(value for value in values if value in _FUNCTIONS))
    if len(values) > 1:
        reader.doubt("VOILUTFunction", "several values")
    elif not known:
        reader.doubt("VOILUTFunction", "unknown")
    return known[0] if len(known) == 1 and len(set(values)) == 1 else "LINEAR"


def _padding(reader: _Reader, prefix: str) -> tuple[float, float] | None:
    value = reader.number(f"{prefix}PixelPaddingValue")
    if value is None:
        return None
    limit = reader.number(f"{prefix}PixelPaddingRangeLimit")
    ends = sorted(_as_signed(end, reader.dataset) for end in (value, value if limit is None else limit))
    return ends[0], ends[1]


def _as_signed(value: float, dataset: Dataset) -> float:
    """A padding value of signed pixels that was written as an unsigned number: 63536 means -2000."""
    bits = attributes.integer(dataset, "BitsAllocated") or 16
    signed = attributes.integer(dataset, "PixelRepresentation") == 1
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value
