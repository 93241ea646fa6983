"""Windowing: the mapping of values of a grey image to grey levels [DICOM PS3.3 C.11.2].

A window is chosen by its index in the file, by its explanation, or, for CT in Hounsfield units, by the name
of a preset. The default for a file without the chosen window is its first window.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from domainclip.data.dicom.display import Display, Window
from domainclip.data.dicom.lookup_tables import LookupTable
from domainclip.data.dicom.pixel_format import PixelFormat

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


def apply_window(
    values: np.ndarray, form: PixelFormat, display: Display, choice: WindowChoice, padding: np.ndarray
) -> tuple[np.ndarray, str]:
    """Grey levels from 0 (black) to 255 as float64, and a description of the mapping.

    `padding` (rows, columns) is True where pixels hold no measurement.
    """
    transform = _choose(form, display, choice)
    if transform is None:
        return _stretch_range(values, form, padding)
    if isinstance(transform, Window):
        return _apply_function(values, transform), str(transform)
    tables = display.voi_tables
    position = f" ({tables.index(transform) + 1} of {len(tables)})" if len(tables) > 1 else ""
    return transform.look_up(values) / transform.maximum * 255, f"VOI table{position}"


def _choose(form: PixelFormat, display: Display, choice: WindowChoice) -> Window | LookupTable | None:
    """The chosen table or window, or what replaces one that is not there or not usable."""
    transforms = [*display.voi_tables, *display.windows]
    index = _find_index(choice, list(display.explanations))
    chosen = transforms[index] if index is not None and index < len(transforms) else None
    preset = _find_preset(display, choice)
    if index is None and preset is None and transforms:
        chosen = transforms[0]  # the reader counts files without the chosen window
    if chosen is None:
        chosen = preset
    if chosen is None:  # the first usable one
        chosen = next((other for other in transforms if other is not None), None)
    if isinstance(chosen, Window) and chosen is not preset and is_outside(chosen, form, display):
        chosen = None
    if chosen is None and display.modality == "CT" and display.rescale is not None:
        return Window(*PRESETS[DEFAULT_CT], "LINEAR", f"no window in the file: preset {DEFAULT_CT}")
    return chosen


def is_outside(window: Window, form: PixelFormat, display: Display) -> bool:
    """Whether a window shows no value that the pixels can have: the image would be black or white."""
    if form.keyword != "PixelData" or display.modality_table is not None or window.function == "SIGMOID":
        return False
    bits = form.allocated  # not those stored: headers often state too few
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if form.signed else (0.0, 2.0**bits - 1)
    slope, intercept = display.rescale or (1.0, 0.0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return window.centre + window.width / 2 < ends[0] or window.centre - window.width / 2 > ends[1]


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


def _find_preset(display: Display, choice: WindowChoice) -> Window | None:
    """The chosen preset; None for a modality other than CT, since presets are in Hounsfield units."""
    if not isinstance(choice, str) or choice not in PRESETS or display.modality != "CT":
        return None
    return Window(*PRESETS[choice], "LINEAR", f"preset {choice}")


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


def _stretch_range(values: np.ndarray, form: PixelFormat, padding: np.ndarray) -> tuple[np.ndarray, str]:
    """Grey levels without a window: 8 bits unchanged; of more bits, the range of the measured pixels."""
    measured = values[~padding & np.isfinite(values)]
    if not measured.size:
        return np.zeros(values.shape), "nothing but padding"
    low, high = float(measured.min()), float(measured.max())
    bits = form.stored
    full = 2.0**bits - 1
    if low >= 0 and high <= full <= 255:
        low, high, description = 0.0, full, f"{bits} bits as they are"
    else:  # the full range of some scanners would leave the image nearly black
        description = f"range {low:g} to {high:g}"
    with np.errstate(invalid="ignore", over="ignore"):  # padding, where all other pixels are equal
        grey = (values.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny) * 255
    return grey, description
