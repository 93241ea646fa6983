"""A DICOM file as the picture that a reader of it sees [DICOM PS3.3 C.7.6.3, C.11.1, C.11.2; PS3.4 N.2].

Stored values -> modality LUT -> VOI LUT or window (or, without one, the range of the real pixels) ->
8 bits -> inverted last, for MONOCHROME1 and for a Presentation LUT Shape of INVERSE, which say the same.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.config import settings
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_decoder,
    pixel_array,
)
from pydicom.uid import UID

from domainclip.data.unreadable import UnreadableImage

# pydicom would print values that it finds odd, and a value may be a patient's name.
settings.reading_validation_mode = pydicom.config.IGNORE

_DICOMDIR = "1.2.840.10008.1.3.10"


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file: a preamble of 128 bytes, then "DICM"."""
    return data[128:132] == b"DICM"


def picture(data: bytes, name: str, max_pixels: int, frame: int = 0, window: int = 0) -> Image.Image:
    """One frame as RGB, through its `window`-th window where the file has several.

    Raises: UnreadableImage with the reason; a missing decoder is named with the line that installs it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = _read(io.BytesIO(data), name)
        _refuse_non_image(dataset, name)
        try:
            if int(dataset.Rows) * int(dataset.Columns) > max_pixels:
                raise UnreadableImage(name, f"more than {max_pixels} pixels")
            stored = _stored(dataset, name, frame)
            return Image.fromarray(_shown(stored, dataset, window)).convert("RGB")
        except UnreadableImage:
            raise
        except Exception as error:
            # The text of such an error may quote a value of the file: its kind must do.
            raise UnreadableImage(name, f"broken DICOM image ({type(error).__name__})") from None


def header(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Some attributes of an image file as text, by keyword; pixels are not read.

    PatientID falls back on StudyInstanceUID, so that a file without a patient still has a group.

    Raises: UnreadableImage for a file that is broken or holds no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [*keywords, "StudyInstanceUID", "SOPClassUID", "Modality", "Rows"]
        dataset = _read(path, str(path), wanted)
        if "Rows" not in dataset:
            _refuse_non_image(dataset, str(path))
        try:
            found = {keyword: str(dataset.get(keyword) or "").strip() for keyword in keywords}
        except Exception as error:
            raise UnreadableImage(str(path), f"broken DICOM header ({type(error).__name__})") from None
        if found.get("PatientID") == "":
            found["PatientID"] = str(dataset.get("StudyInstanceUID") or "")
        return found


def _read(source: Path | io.BytesIO, name: str, wanted: list[str] | None = None) -> FileDataset:
    try:
        return pydicom.dcmread(source, stop_before_pixels=wanted is not None, specific_tags=wanted)
    except InvalidDicomError:
        raise UnreadableImage(name, "no DICOM preamble") from None
    except Exception as error:
        raise UnreadableImage(name, f"broken DICOM file ({type(error).__name__})") from None


def _refuse_non_image(dataset: FileDataset, name: str) -> None:
    if any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise UnreadableImage(name, "not an image (DICOMDIR)")
    storage = UID(str(dataset.get("SOPClassUID") or "")).name
    kind = str(dataset.get("Modality") or storage)
    # An image class without pixels was cut off; a plan or a report never had any.
    broken = "Image Storage" in storage or not kind
    raise UnreadableImage(name, "no pixel data" if broken else f"not an image ({kind})")


def _stored(dataset: FileDataset, name: str, frame: int) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3) stored values, colour as RGB."""
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImage(name, f"unknown transfer syntax ({syntax.name or 'none given'})") from None
    if not decoder.is_available:
        raise UnreadableImage(name, f"no decoder for {syntax.name}: pip install domainclip[dicom]")
    try:
        values: np.ndarray = pixel_array(dataset, index=frame)
        return values
    except RuntimeError:
        raise UnreadableImage(name, f"{syntax.name} data that no installed decoder can read") from None


def _shown(stored: np.ndarray, dataset: FileDataset, window: int) -> np.ndarray:
    """uint8, (rows, columns) or (rows, columns, 3)."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        return _scaled(colours, 0, np.iinfo(colours.dtype).max)
    if stored.ndim == 3:
        return _scaled(stored, 0, 2.0 ** int(dataset.BitsStored) - 1)
    padding = _padding(stored, dataset)
    values = apply_modality_lut(stored, dataset)
    grey = _scaled(*_windowed(values, dataset, window, padding))
    if photometric == "MONOCHROME1" or str(dataset.get("PresentationLUTShape", "")).upper() == "INVERSE":
        grey = 255 - grey
    # What lies outside the picture is black, however the rest is inverted.
    return np.where(padding, np.uint8(0), grey)


def _windowed(
    values: np.ndarray, dataset: FileDataset, window: int, padding: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Values with the lowest and highest that the transform can give, so that scaling saturates nothing."""
    if dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[window].LUTDescriptor[2])
        return apply_voi(values, dataset, window), 0, 2.0**depth - 1
    if _has_window(dataset, window):
        with np.errstate(over="ignore"):
            low, high = apply_windowing(np.array([-1e30, 1e30]), dataset, window)
        return apply_windowing(values, dataset, window), float(low), float(high)
    real = values[~padding & np.isfinite(values)]
    if not real.size:
        return np.zeros(values.shape), 0, 1
    low, high = float(real.min()), float(real.max())
    full = 2.0 ** int(dataset.get("BitsStored", 16)) - 1
    # 8 bits are ready to show; of more, some scanner's whole range would leave the picture nearly black.
    return (values, 0, full) if low >= 0 and high <= full <= 255 else (values, low, high)


def _has_window(dataset: FileDataset, window: int) -> bool:
    """Whether the window is there and usable: a width of 0 stands in some files, and means none."""
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return False
    width = dataset["WindowWidth"]
    linear = str(dataset.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    return float(width.value[window] if width.VM > 1 else width.value) >= (1 if linear else 1e-12)


def _padding(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """(rows, columns) bool: where the scanner saw nothing."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if high == low:
        return np.zeros(values.shape, np.uint8)
    shares = (np.nan_to_num(values.astype(np.float64)) - low) / (high - low)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
