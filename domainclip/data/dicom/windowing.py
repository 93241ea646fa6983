"""Windowing: the mapping of values of a grey image to grey levels [DICOM PS3.3 C.11.2].

A window is chosen by its index in the file, by its explanation, or, for CT in Hounsfield units, by the name
of a preset. The default for a file without the chosen window is its first window.
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
# defaultWindowLevelPresets; mediastinum, abdomen, subdural and stroke are common, but of no standard.
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
    "wide": (100, 2500),  # air to bone in one image
}
# A CT without a window gets a fixed one: with the range of its pixels, the same tissue would have another
# grey level in every image.
DEFAULT_CT = "wide"
# Attributes that are counted to find the number of tables and windows, and those that hold their names.
_COUNT_KEYWORDS = ("VOILUTSequence", "WindowWidth")
_NAME_KEYWORDS = ("VOILUTSequence", "WindowCenterWidthExplanation")
WINDOW_KEYWORDS = ("Modality", "NumberOfFrames", *_COUNT_KEYWORDS, *_NAME_KEYWORDS)


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


def apply_window(
    values: np.ndarray, dataset: Dataset, choice: WindowChoice, padding: np.ndarray
) -> tuple[np.ndarray, str]:
    """Grey levels from 0 (black) to 255 as float64, and a description of the mapping.

    `padding` (rows, columns) is True where pixels hold no measurement.
    """
    tables = list(dataset.get("VOILUTSequence") or [])
    windows = _read_windows(dataset)
    preset = _find_preset(dataset, choice)
    names = [str(item.get("LUTExplanation") or "").strip() for item in tables]
    names += _explanations(dataset, len(windows))
    index = _find_index(choice, names)
    if index is None and preset is None:
        index = 0  # the reader counts files without the chosen window
    if index is not None and index < len(tables):
        table = lookup_tables.read_lookup_table(tables[index], dataset)
        origin = f" ({index + 1} of {len(tables)})" if len(tables) > 1 else ""
        return table.look_up(values) / table.maximum * 255, f"VOI table{origin}"
    position = None if index is None else index - len(tables)
    window = windows[position] if position is not None and position < len(windows) else None
    window = window or preset
    if window is None and str(dataset.get("Modality") or "") == "CT" and _is_rescaled(dataset):
        window = Window(*PRESETS[DEFAULT_CT], "LINEAR", f"no window in the file: preset {DEFAULT_CT}")
    if window is None:
        return _stretch_range(values, dataset, padding)
    return _apply_function(values, window), str(window)


def parse_window(value: WindowChoice) -> WindowChoice:
    """The index or the name of a window, from the text of a location or an option."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def has_window(attributes: Mapping[str, str], choice: WindowChoice) -> bool:
    """Whether an image has the chosen window, by its attributes `WINDOW_KEYWORDS`.

    True for an enhanced file, whose windows are attributes of its frames and are not read here.
    """
    if attributes.get("NumberOfFrames", "1") not in ("", "1"):
        return True
    if isinstance(choice, int):
        values = [attributes.get(keyword) for keyword in _COUNT_KEYWORDS]
        count = sum(len(value.split("\\")) for value in values if value)
        return choice == 0 or choice < count
    names = [
        name.casefold() for keyword in _NAME_KEYWORDS for name in attributes.get(keyword, "").split("\\")
    ]
    return choice.casefold() in names or (choice in PRESETS and attributes.get("Modality") == "CT")


def _find_index(choice: WindowChoice, names: list[str]) -> int | None:
    if isinstance(choice, int):
        return choice if 0 <= choice < len(names) else None
    return next((i for i, name in enumerate(names) if name.casefold() == choice.casefold()), None)


def _find_preset(dataset: Dataset, choice: WindowChoice) -> Window | None:
    """The chosen preset; None for a modality other than CT, since presets are in Hounsfield units."""
    if not isinstance(choice, str) or choice not in PRESETS or str(dataset.get("Modality") or "") != "CT":
        return None
    return Window(*PRESETS[choice], "LINEAR", f"preset {choice}")


def _is_rescaled(dataset: Dataset) -> bool:
    return dataset.get("RescaleIntercept") is not None


def _explanations(dataset: Dataset, count: int) -> list[str]:
    names = [str(name).strip() for name in _as_list(dataset.get("WindowCenterWidthExplanation"))]
    return [*names, *[""] * count][:count]


def _read_windows(dataset: Dataset) -> list[Window | None]:
    """The windows of a file in its order; None for an unusable width, such as the 0 in some files."""
    centres, widths = _as_list(dataset.get("WindowCenter")), _as_list(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    min_width = 1.0 if function == "LINEAR" else 1e-12
    count = min(len(centres), len(widths))
    return [
        Window(float(centre), float(width), function, f"{i} of {count}" if count > 1 else "")
        if float(width) >= min_width
        else None
        for i, (centre, width) in enumerate(zip(centres, widths, strict=False), start=1)
    ]


def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def _apply_function(values: np.ndarray, window: Window) -> np.ndarray:
    """Grey levels by pydicom's windowing, for an output of 8 bits."""
    settings = Dataset()
    settings.PhotometricInterpretation = "MONOCHROME2"
    settings.BitsStored, settings.PixelRepresentation = 8, 0
    settings.WindowCenter, settings.WindowWidth = window.centre, window.width
    settings.VOILUTFunction = window.function
    with np.errstate(over="ignore"):
        grey: np.ndarray = apply_windowing(values, settings)
    return grey


def _stretch_range(values: np.ndarray, dataset: Dataset, padding: np.ndarray) -> tuple[np.ndarray, str]:
    """Grey levels without a window: 8 bits unchanged; of more bits, the range of the measured pixels."""
    measured = values[~padding & np.isfinite(values)]
    if not measured.size:
        return np.zeros(values.shape), "nothing but padding"
    low, high = float(measured.min()), float(measured.max())
    bits = int(dataset.get("BitsStored", 16))
    full = 2.0**bits - 1
    if low >= 0 and high <= full <= 255:
        low, high, description = 0.0, full, f"{bits} bits as they are"
    else:  # the full range of some scanners would leave the image nearly black
        description = f"range {low:g} to {high:g}"
    with np.errstate(invalid="ignore"):
        grey = (values.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny) * 255
    return grey, description
