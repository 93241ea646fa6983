"""A frame as the picture that a reader of it sees [DICOM PS3.3 C.7.6.3, C.11; PS3.4 N.2].

Stored values -> modality LUT or rescale -> VOI LUT, window, preset, or the range of the real pixels -> 8 bits
-> presentation LUT -> inverted last, for MONOCHROME1 and for a Presentation LUT Shape of INVERSE, which say
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
    """One frame as RGB, through the window that is asked for: its index, its explanation, or a CT preset.

    Raises: UnreadableImage with the reason; a missing decoder is named with the line that installs it.
    """
    return render(data, name, max_pixels, frame, window)[0]


def describe_rendering(
    data: bytes, name: str, max_pixels: int, frame: int | str = 0, window: int | str = 0
) -> str:
    """What `picture` does with a file, in words: "rescale 1 -1024; window 40/400 (preset soft_tissue)".

    Raises: UnreadableImage, as `picture` does.
    """
    return render(data, name, max_pixels, frame, window)[1]


def render(
    data: bytes, name: str, max_pixels: int, frame: int | str = 0, window: int | str = 0
) -> tuple[Image.Image, str]:
    """The picture and the words.

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
                known = f" ({model})" if model in _UNREAD_COLOUR_MODELS else ""
                raise UnreadableImage(name, f"a colour model that is not read{known}")
            at = frames.frame_index(frame, int(dataset.get("NumberOfFrames") or 1), name)
            values = stored_values.read_stored_values(dataset, name, at)
            frames.apply_frame_groups(dataset, at)
            colour = values.ndim == 3 or model == "PALETTE COLOR"
            look = windowing.parse_window(window)
            shown, said = _render_colour(values, dataset) if colour else _render_grey(values, dataset, look)
            return Image.fromarray(shown).convert("RGB"), "; ".join(said)
        except UnreadableImage:
            raise
        except Exception as error:
            # The text of such an error may quote a value of the file: its kind must do.
            raise UnreadableImage(name, f"broken DICOM image ({type(error).__name__})") from None


def _render_colour(values: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, columns, 3) in sRGB."""
    said = [str(dataset.PhotometricInterpretation)]
    top = 2.0 ** int(dataset.BitsStored) - 1
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        top = float(np.iinfo(values.dtype).max)
    shown = to_eight_bits(values / top * 255)
    if _has_icc_profile(dataset):
        try:
            shown = apply_icc_profile(shown, dataset, color_space="sRGB")
            said.append("ICC profile to sRGB")
        except Exception:  # LittleCMS and pydicom raise what they like on a broken profile
            said.append("ICC profile not usable")
    return shown, [*said, "8 bit"]


def _has_icc_profile(dataset: Dataset) -> bool:
    """Whether there is a colour profile; slides keep it with the light path."""
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
    # A grey depends on nothing but the stored value, so it is worked out once for each one that occurs.
    places = (values - low).astype(np.uint16, copy=False)
    occurs = np.zeros(span, bool)
    occurs[places] = True
    greys, said = _grey_levels(np.flatnonzero(occurs).astype(np.int64) + int(low), dataset, window)
    table = np.zeros(span, np.uint8)
    table[occurs] = greys
    return table[places], said


def _grey_levels(
    values: np.ndarray, dataset: FileDataset, window: windowing.WindowChoice
) -> tuple[np.ndarray, list[str]]:
    """uint8, the shape of the stored values."""
    padding = _padding_mask(values, dataset)
    values, said = _apply_modality(values, dataset)
    grey, words = windowing.apply_window(values, dataset, window, padding)
    said.append(words)
    if dataset.get("PresentationLUTSequence"):
        table = lookup_tables.read_lookup_table(dataset.PresentationLUTSequence[0], dataset)
        steps = np.rint(np.nan_to_num(grey) / 255 * (len(table.entries) - 1))
        grey = table.look_up(steps + table.first) / table.top * 255
        said.append("presentation table")
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":
        grey = 255 - grey
        said.append("inverted")
    shown = to_eight_bits(grey)
    if padding.any():
        # What lies outside the picture is black, however the rest is inverted.
        shown = np.where(padding, np.uint8(0), shown)
        said.append("padding black")
    return shown, [*said, "8 bit"]


def _apply_modality(values: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, list[str]]:
    """Stored values in the units of the modality, as Hounsfield units."""
    if dataset.get("ModalityLUTSequence"):
        table = lookup_tables.read_lookup_table(dataset.ModalityLUTSequence[0], dataset)
        return table.look_up(values), ["modality table"]
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        return values, []
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return apply_rescale(values, dataset), [f"rescale {slope:g} {intercept:g}"]


def _padding_mask(values: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """(rows, columns) bool: where the scanner saw nothing."""
    found = next((dataset.get(f"{kind}PixelPaddingValue") for kind in _padding_prefixes(dataset)), None)
    if found is None:
        return np.zeros(values.shape, bool)
    limit = next((dataset.get(f"{kind}PixelPaddingRangeLimit") for kind in _padding_prefixes(dataset)), None)
    low, high = sorted(_as_signed(float(end), dataset) for end in (found, found if limit is None else limit))
    return (values >= low) & (values <= high)


def _padding_prefixes(dataset: Dataset) -> list[str]:
    if "PixelData" in dataset:
        return [""]
    return ["Float"] if "FloatPixelData" in dataset else ["DoubleFloat"]


def _as_signed(value: float, dataset: Dataset) -> float:
    """Some writers put the padding of signed pixels as an unsigned number: 63536 for -2000."""
    bits = int(dataset.get("BitsAllocated") or 16)
    return value - 2**bits if dataset.get("PixelRepresentation") == 1 and value >= 2 ** (bits - 1) else value


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8; halves go up, also those that floating-point noise has put a little below."""
    clean = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
    grey: np.ndarray = np.clip(np.floor(clean + (0.5 + 1e-6)), 0, 255).astype(np.uint8)
    return grey
