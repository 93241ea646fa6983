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
from pydicom.pixels import apply_color_lut, apply_icc_profile

from domainclip.data.dicom import attributes, frames, reading, stored_values, windowing
from domainclip.data.dicom.display import Display, read_display
from domainclip.data.dicom.pixel_format import PALETTE, PixelFormat, read_pixel_format
from domainclip.errors import UnreadableImage

_PALETTE_KEYWORDS = tuple(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue"))


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
        form = read_pixel_format(dataset, name)
        if form.rows * form.columns > max_pixels:
            raise UnreadableImage(name, f"more than {max_pixels} pixels")
        index = frames.frame_index(frame, form.frames, name)
        try:
            values = stored_values.read_stored_values(dataset, form, name, index)
            if values.ndim == 3 or form.color_model == PALETTE:
                pixels, steps = _render_colour(values, dataset, form, name)
            else:
                frames.apply_frame_groups(dataset, index)
                display = read_display(dataset, form.keyword.removesuffix("PixelData"))
                pixels, steps = _render_grey(values, form, display, windowing.parse_window(window))
            return Image.fromarray(pixels).convert("RGB"), "; ".join(steps)
        except UnreadableImage:
            raise
        except MemoryError:
            raise UnreadableImage(name, "more memory than there is") from None
        except Exception as error:
            # The text of the error may quote a value of the file, so only its type is reported.
            raise UnreadableImage(name, f"broken DICOM image ({type(error).__name__})") from None


def _render_colour(
    values: np.ndarray, dataset: FileDataset, form: PixelFormat, name: str
) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, columns, 3) in sRGB."""
    steps = [form.color_model]
    maximum = 2.0**form.stored - 1
    if form.color_model == PALETTE:
        values = _apply_palette(values, dataset, form, name)
        maximum = float(np.iinfo(values.dtype).max)
    pixels = to_eight_bits(values / maximum * 255)
    if _has_icc_profile(dataset):
        try:
            pixels = apply_icc_profile(pixels, dataset, color_space="sRGB")
            steps.append("ICC profile to sRGB")
        except Exception:  # LittleCMS and pydicom raise arbitrary exceptions on a broken profile
            steps.append("ICC profile not usable")
    return pixels, [*steps, "8 bit"]


def _apply_palette(values: np.ndarray, dataset: FileDataset, form: PixelFormat, name: str) -> np.ndarray:
    """(rows, columns, 3) colours of the indices.

    Raises: UnreadableImage for a palette that is not usable.
    """
    dataset.BitsAllocated, dataset.PixelRepresentation = form.allocated, int(form.signed)
    try:
        colours: np.ndarray = apply_color_lut(values, dataset)[..., :3]
    except Exception:  # pydicom raises arbitrary exceptions on a broken palette
        missing = next((k for k in _PALETTE_KEYWORDS if not attributes.is_present(dataset, k)), "")
        reason = f"the attribute {missing} is missing" if missing else "a palette that is not usable"
        raise UnreadableImage(name, reason) from None
    return colours


def _has_icc_profile(dataset: Dataset) -> bool:
    """Whether there is a colour profile; that of a slide is moved from its optical path to the dataset."""
    paths = attributes.items(dataset, "OpticalPathSequence")
    if "ICCProfile" not in dataset and paths and "ICCProfile" in paths[0]:
        dataset.ICCProfile = paths[0].get_item("ICCProfile").value
    return attributes.is_present(dataset, "ICCProfile")


def _render_grey(
    values: np.ndarray, form: PixelFormat, display: Display, window: windowing.WindowChoice
) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, columns)."""
    low = values.min()
    span = 0 if values.dtype.kind == "f" else int(values.max()) - int(low) + 1
    if not 0 < span <= 2**16:
        return _grey_levels(values, form, display, window)
    # A grey level depends on the stored value only, so it is computed once for each value that occurs.
    wide = values.astype(np.int16) if values.dtype.itemsize == 1 else values  # -128 to 127 span 256
    offsets = (wide - wide.dtype.type(low)).astype(np.uint16, copy=False)
    occurs = np.zeros(span, bool)
    occurs[offsets] = True
    levels, steps = _grey_levels(np.flatnonzero(occurs).astype(np.int64) + int(low), form, display, window)
    table = np.zeros(span, np.uint8)
    table[occurs] = levels
    return table[offsets], steps


def _grey_levels(
    values: np.ndarray, form: PixelFormat, display: Display, window: windowing.WindowChoice
) -> tuple[np.ndarray, list[str]]:
    """uint8 of the same shape, and the steps."""
    padding = np.zeros(values.shape, bool)
    if display.padding is not None:
        padding = (values >= display.padding[0]) & (values <= display.padding[1])
    values, steps = _apply_modality(values, display)
    grey, description = windowing.apply_window(values, form, display, window, padding)
    steps.append(description)
    table = display.presentation_table
    if table is not None:
        inputs = np.rint(np.nan_to_num(grey) / 255 * (len(table.entries) - 1))
        grey = table.look_up(inputs + table.first) / table.maximum * 255
        steps.append("presentation table")
    if form.color_model == "MONOCHROME1" or display.is_inverse:
        grey = 255 - grey
        steps.append("inverted")
    pixels = to_eight_bits(grey)
    if padding.any():
        # Padding is black, even if the image is inverted.
        pixels = np.where(padding, np.uint8(0), pixels)
        steps.append("padding black")
    return pixels, [*steps, "8 bit"]


def _apply_modality(values: np.ndarray, display: Display) -> tuple[np.ndarray, list[str]]:
    """Stored values in the units of the modality, such as Hounsfield units."""
    if display.modality_table is not None:
        return display.modality_table.look_up(values), ["modality table"]
    if display.rescale is None:
        return values, []
    slope, intercept = display.rescale
    return values.astype(np.float64) * slope + intercept, [f"rescale {slope:g} {intercept:g}"]


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8; halves round up, also those that floating-point errors reduced slightly."""
    finite = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
    grey: np.ndarray = np.clip(np.floor(finite + (0.5 + 1e-6)), 0, 255).astype(np.uint8)
    return grey
