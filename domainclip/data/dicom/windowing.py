"""Which values of a grey picture are shown, and how dark [DICOM PS3.3 C.11.2].

Of several windows in a file one is asked for: by its index, by the words of its explanation, or, for CT in
Hounsfield units, by the name of a preset. What a file does not have falls back on its first window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_windowing

from domainclip.data.dicom import lookup_tables

WindowChoice = int | str  # 0, 1 … or "LUNG" or "soft_tissue"
# Centre and width in Hounsfield units: soft_tissue, lung, liver, bone and brain as in the OHIF viewer's
# defaultWindowLevelPresets; mediastinum, abdomen, subdural and stroke are in common use, of no standard.
PRESETS: Mapping[str, tuple[float, float]] = {
    "abdomen": (50, 400),
    "bone": (480, 2500),
    "brain": (40, 80),
    "liver": (90, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (40, 400),
    "stroke": (40, 40),
    "subdural": (100, 300),
    "wide": (100, 2500),  # air to bone in one picture
}
# A CT that says nothing gets a fixed window: the range of its own pixels would show one tissue in another
# grey in every picture.
DEFAULT_CT = "wide"
# What the header says of tables and of windows: how many there are, and their names.
_COUNT_KEYWORDS, _NAME_KEYWORDS = (
    ("VOILUTSequence", "WindowWidth"),
    ("VOILUTSequence", "WindowCenterWidthExplanation"),
)
WINDOW_KEYWORDS = ("Modality", "NumberOfFrames", *_COUNT_KEYWORDS, *_NAME_KEYWORDS)


@dataclass(frozen=True)
class Window:
    """A linear or sigmoid window."""

    centre: float
    width: float
    function: str  # LINEAR, LINEAR_EXACT, SIGMOID
    said: str  # "preset lung", "1 of 2", "" for the only one

    def __str__(self) -> str:
        shape = "" if self.function == "LINEAR" else f" {self.function.lower()}"
        return f"window {self.centre:g}/{self.width:g}{shape}{f' ({self.said})' if self.said else ''}"


def apply_window(
    values: np.ndarray, dataset: Dataset, wanted: WindowChoice, padding: np.ndarray
) -> tuple[np.ndarray, str]:
    """Grey from 0 (black) to 255 as float64, and what was done, in words."""
    luts = list(dataset.get("VOILUTSequence") or [])
    windows = _read_windows(dataset)
    preset = _find_preset(dataset, wanted)
    names = [str(item.get("LUTExplanation") or "").strip() for item in luts]
    names += _explanations(dataset, len(windows))
    at = _find_index(wanted, names)
    if at is None and preset is None:
        at = 0  # what the file lacks is counted by the reader
    if at is not None and at < len(luts):
        table = lookup_tables.read_lookup_table(luts[at], dataset)
        said = f" ({at + 1} of {len(luts)})" if len(luts) > 1 else ""
        return table.look_up(values) / table.top * 255, f"VOI table{said}"
    usable = windows[at - len(luts)] if at is not None and at - len(luts) < len(windows) else None
    window = usable or preset
    if window is None and str(dataset.get("Modality") or "") == "CT" and _is_rescaled(dataset):
        window = Window(*PRESETS[DEFAULT_CT], "LINEAR", f"no window in the file: preset {DEFAULT_CT}")
    return (
        _stretch_range(values, dataset, padding)
        if window is None
        else (_apply_linear_or_sigmoid(values, window), str(window))
    )


def parse_window(value: WindowChoice) -> WindowChoice:
    """The index or the name that a path or an option says."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def has_window(attributes: Mapping[str, str], wanted: WindowChoice) -> bool:
    """Whether an image has the window that is asked for, by the header's `WINDOW_KEYWORDS`.

    The windows of an enhanced file's frames stand elsewhere: it passes unseen.
    """
    if attributes.get("NumberOfFrames", "1") not in ("", "1"):
        return True
    if isinstance(wanted, int):
        count = sum(len(attributes[word].split("\\")) for word in _COUNT_KEYWORDS if attributes.get(word))
        return wanted == 0 or wanted < count
    named = [name.casefold() for word in _NAME_KEYWORDS for name in attributes.get(word, "").split("\\")]
    return wanted.casefold() in named or (wanted in PRESETS and attributes.get("Modality") == "CT")


def _find_index(wanted: WindowChoice, names: list[str]) -> int | None:
    if isinstance(wanted, int):
        return wanted if 0 <= wanted < len(names) else None
    return next((i for i, name in enumerate(names) if name.casefold() == wanted.casefold()), None)


def _find_preset(dataset: Dataset, wanted: WindowChoice) -> Window | None:
    """A preset means Hounsfield units, so it is for CT alone."""
    if not isinstance(wanted, str) or wanted not in PRESETS or str(dataset.get("Modality") or "") != "CT":
        return None
    return Window(*PRESETS[wanted], "LINEAR", f"preset {wanted}")


def _is_rescaled(dataset: Dataset) -> bool:
    return dataset.get("RescaleIntercept") is not None


def _explanations(dataset: Dataset, count: int) -> list[str]:
    names = [str(name).strip() for name in _as_list(dataset.get("WindowCenterWidthExplanation"))]
    return [*names, *[""] * count][:count]


def _read_windows(dataset: Dataset) -> list[Window | None]:
    """The windows of a file in its order; None for one without a usable width: 0 stands in some files."""
    centres, widths = _as_list(dataset.get("WindowCenter")), _as_list(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    least = 1.0 if function == "LINEAR" else 1e-12
    count = min(len(centres), len(widths))
    return [
        Window(float(centre), float(width), function, f"{i} of {count}" if count > 1 else "")
        if float(width) >= least
        else None
        for i, (centre, width) in enumerate(zip(centres, widths, strict=False), start=1)
    ]


def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def _apply_linear_or_sigmoid(values: np.ndarray, window: Window) -> np.ndarray:
    """pydicom's own windowing, told that the output has 8 bits."""
    one = Dataset()
    one.PhotometricInterpretation, one.BitsStored, one.PixelRepresentation = "MONOCHROME2", 8, 0
    one.WindowCenter, one.WindowWidth, one.VOILUTFunction = window.centre, window.width, window.function
    with np.errstate(over="ignore"):
        grey: np.ndarray = apply_windowing(values, one)
    return grey


def _stretch_range(values: np.ndarray, dataset: Dataset, padding: np.ndarray) -> tuple[np.ndarray, str]:
    """Without a window: 8 bits as they are; of more, the range of the real pixels."""
    real = values[~padding & np.isfinite(values)]
    if not real.size:
        return np.zeros(values.shape), "nothing but padding"
    low, high = float(real.min()), float(real.max())
    full = 2.0 ** int(dataset.get("BitsStored", 16)) - 1
    if low >= 0 and high <= full <= 255:
        low, high, said = 0.0, full, f"{int(dataset.get('BitsStored', 16))} bits as they are"
    else:  # some scanner's whole range would leave the picture nearly black
        said = f"range {low:g} to {high:g}"
    with np.errstate(invalid="ignore"):
        return (values.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny) * 255, said
