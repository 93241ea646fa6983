"""Rendering of a frame as a viewer shows it [DICOM PS3.3 C.7.6.3, C.11; PS3.4 N.2].

Stored values -> modality LUT or rescale -> VOI LUT, window, preset, or the range of the real pixels -> 8 bits
-> presentation LUT -> inverted last, for MONOCHROME1 and for a Presentation LUT Shape of INVERSE, which mean
the same. Colour: palette and YBR to RGB, then by its ICC profile to sRGB. Overlays are not drawn.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_icc_profile, apply_rescale

from domainclip.data.dicom import frames, lookup_tables, reading, stored_values, windowing
from domainclip.errors import UnreadableImage

_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_COLOUR_MODELS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", *_YBR)
_UNREAD_COLOUR_MODELS = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "ARGB", "CMYK", "HSV", "XYB")


def render_image(
    data: bytes, name: str, max_pixels: int, frame: int | str = 0, window: int | str = 0
) -> Image.Image:
    """One frame as RGB; `window` is the index or explanation of one of its windows, or a CT preset.

    Raises: UnreadableImage with the reason; for a missing decoder, with the command that installs it.
    """
    return render(data, name, max_pixels, frame, window)[0]


def describe_rendering(
    data: bytes, name: str, max_pixels: int, frame: int | str = 0, window: int | str = 0
) -> str:
    """The steps of `render_image` in words: "rescale 1 -1024; window 40/400 (preset soft_tissue)".

    Raises: UnreadableImage, as `render_image` does.
    """
    return render(data, name, max_pixels, frame, window)[1]


def render(
    data: bytes, name: str, max_pixels: int, frame: int | str = 0, window: int | str = 0
) -> tuple[Image.Image, str]:
    """The image of `render_image` and the text of `describe_rendering`.

    Raises: UnreadableImage with the reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = reading.read_dicom(io.BytesIO(data), name)
        reading.check_is_image(dataset, name)
        reading.check_pixel_attributes(dataset, name)
        try:
            if int(dataset.Rows) * int(dataset.Columns) > max_pixels:
                raise UnreadableImage(name, f"more than {max_pixels} pixels")
            model = str(dataset.PhotometricInterpretation)
            if model not in _COLOUR_MODELS:
                quoted = f" ({model})" if model in _UNREAD_COLOUR_MODELS else ""
                raise UnreadableImage(name, f"a colour model that is not read{quoted}")
            index = frames.frame_index(frame, int(dataset.get("NumberOfFrames") or 1), name)
            values = stored_values.read_stored_values(dataset, name, index)
            frames.apply_frame_groups(dataset, index)
            if values.ndim == 3 or model == "PALETTE COLOR":
                pixels, steps = _render_colour(values, dataset)
            else:
                pixels, steps = _render_grey(values, dataset, windowing.parse_window(window))
            return Image.fromarray(pixels).convert("RGB"), "; ".join(steps)
        except UnreadableImage:
            raise
        except Exception as error:
            # The text of the error may quote a value of the file, so only its type is reported.
            raise UnreadableImage(name, f"broken DICOM image ({type(error).__name__})") from None


def _render_colour(values: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, columns, 3) in sRGB."""
    steps = [str(dataset.PhotometricInterpretation)]
    maximum = 2.0 ** int(dataset.BitsStored) - 1
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        maximum = float(np.iinfo(values.dtype).max)
    pixels = to_eight_bits(values / maximum * 255)
    if _has_icc_profile(dataset):
        try:
            pixels = apply_icc_profile(pixels, dataset, color_space="sRGB")
            steps.append("ICC profile to sRGB")
        except Exception:  # LittleCMS and pydicom raise arbitrary exceptions on a broken profile
            steps.append("ICC profile not usable")
    return pixels, [*steps, "8 bit"]


def _has_icc_profile(dataset: Dataset) -> bool:
    """Whether there is a colour profile; that of a slide is moved from its optical path to the dataset."""
    paths = list(dataset.get("OpticalPathSequence") or [])
    if "ICCProfile" not in dataset and paths and "ICCProfile" in paths[0]:
        dataset.ICCProfile = paths[0].ICCProfile
    return bool(dataset.get("ICCProfile"))


def _render_grey(
    values: np.ndarray, dataset: FileDataset, window: windowing.WindowChoice
) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, columns)."""
    low = values.min()
    span = 0 if values.dtype.kind == "f" else int(values.max()) - int(low) + 1
    if not 0 < span <= 2**16:
        return _grey_levels(values, dataset, window)
    # A grey level depends on the stored value only, so it is computed once for each value that occurs.
    offsets = (values - low).astype(np.uint16, copy=False)
    occurs = np.zeros(span, bool)
    occurs[offsets] = True
    levels, steps = _grey_levels(np.flatnonzero(occurs).astype(np.int64) + int(low), dataset, window)
    table = np.zeros(span, np.uint8)
    table[occurs] = levels
    return table[offsets], steps


def _grey_levels(
    values: np.ndarray, dataset: FileDataset, window: windowing.WindowChoice
) -> tuple[np.ndarray, list[str]]:
    """uint8, the shape of the stored values."""
    padding = _padding_mask(values, dataset)
    values, steps = _apply_modality(values, dataset)
    grey, description = windowing.apply_window(values, dataset, window, padding)
    steps.append(description)
    if dataset.get("PresentationLUTSequence"):
        table = lookup_tables.read_lookup_table(dataset.PresentationLUTSequence[0], dataset)
        inputs = np.rint(np.nan_to_num(grey) / 255 * (len(table.entries) - 1))
        grey = table.look_up(inputs + table.first) / table.maximum * 255
        steps.append("presentation table")
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":
        grey = 255 - grey
        steps.append("inverted")
    pixels = to_eight_bits(grey)
    if padding.any():
        # Padding is black, even if the image is inverted.
        pixels = np.where(padding, np.uint8(0), pixels)
        steps.append("padding black")
    return pixels, [*steps, "8 bit"]


def _apply_modality(values: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, list[str]]:
    """Stored values in the units of the modality, such as Hounsfield units."""
    if dataset.get("ModalityLUTSequence"):
        table = lookup_tables.read_lookup_table(dataset.ModalityLUTSequence[0], dataset)
        return table.look_up(values), ["modality table"]
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        return values, []
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return apply_rescale(values, dataset), [f"rescale {slope:g} {intercept:g}"]


def _padding_mask(values: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """bool, the shape of the stored values: where the scanner measured nothing."""
    prefix = _padding_prefix(dataset)
    value = dataset.get(f"{prefix}PixelPaddingValue")
    if value is None:
        return np.zeros(values.shape, bool)
    limit = dataset.get(f"{prefix}PixelPaddingRangeLimit")
    low, high = sorted(_as_signed(float(end), dataset) for end in (value, value if limit is None else limit))
    return (values >= low) & (values <= high)


def _padding_prefix(dataset: Dataset) -> str:
    if "PixelData" in dataset:
        return ""
    return "Float" if "FloatPixelData" in dataset else "DoubleFloat"


def _as_signed(value: float, dataset: Dataset) -> float:
    """A padding value of signed pixels that was written as an unsigned number: 63536 means -2000."""
    bits = int(dataset.get("BitsAllocated") or 16)
    return value - 2**bits if dataset.get("PixelRepresentation") == 1 and value >= 2 ** (bits - 1) else value


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8; halves round up, also those that floating-point errors reduced slightly."""
    finite = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
    grey: np.ndarray = np.clip(np.floor(finite + (0.5 + 1e-6)), 0, 255).astype(np.uint8)
    return grey
