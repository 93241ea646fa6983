"""Rendering of FITS images: one plane in grey, or three as red, green and blue [FITS standard 4.0].

Physical values (BSCALE, BZERO; NaN and BLANK are black) -> limits -> stretch -> 8 bits -> flipped vertically,
since FITS counts rows from the bottom.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from domainclip.data.images import fits_hdus
from domainclip.data.images.fits_settings import FitsSettings
from domainclip.data.images.value_limits import percentile_limits, shares
from domainclip.errors import UnreadableImage


def render_fits(data: bytes, name: str, fragment: Mapping[str, str], max_pixels: int) -> Image.Image:
    """The image as RGB, with the settings of `fragment`; `name` is the file, whose folder holds other bands.

    Raises: UnreadableImage with the reason; without astropy, with the command that installs it.
    """
    settings = fits_hdus.read_settings(name, fragment)
    planes = [_smooth(plane, settings) for plane in fits_hdus.read_planes(data, name, settings, max_pixels)]
    if len({plane.shape for plane in planes}) > 1:
        raise UnreadableImage(name, "FITS bands of different sizes")
    if len(planes) == 1:
        levels = _stretch(planes[0], settings)
    elif settings.stretch == "asinh":
        levels = _stretch_colour(planes, settings)
    else:
        levels = np.dstack([_stretch(plane, settings) for plane in planes])
    return Image.fromarray(np.rint(np.flipud(levels) * 255).astype(np.uint8)).convert("RGB")


def describe_fits(data: bytes, name: str, fragment: Mapping[str, str], max_pixels: int) -> str:
    """How a file is shown: "HDU 1 (SCI) of 3 images; asinh between percentiles 0.5 and 99.5".

    Raises: UnreadableImage, as `render_fits` does.
    """
    settings = fits_hdus.read_settings(name, fragment)
    bands = ", ".join(map(str, settings.bands))
    with warnings.catch_warnings(), fits_hdus.open_hdus(data, name, max_pixels) as hdus:
        warnings.simplefilter("ignore")
        if bands and not any(isinstance(band, int) for band in settings.bands):
            source = f"bands {bands}"
        else:
            selected = fits_hdus.select_hdu(hdus, settings.hdus, name)
            label = f" ({selected.hdu.name})" if selected.number and selected.hdu.name else ""
            several = f" of {selected.images} images" if selected.images > 1 else ""
            source = f"HDU {selected.number}{label}{several}" + (f", planes {bands}" if bands else "")
    if settings.smooth:
        source += f"; smoothed by {settings.smooth:g} pixels"
    if settings.stretch == "zscale":
        return f"{source}; zscale"
    low, high = settings.percentiles
    softening = f", softening {settings.softening:g}" if settings.stretch == "asinh" else ""
    return f"{source}; {settings.stretch} between percentiles {low:g} and {high:g}{softening}"


def _smooth(values: np.ndarray, settings: FitsSettings) -> np.ndarray:
    """The values, smoothed if the settings ask for it; NaN stays NaN and has no weight."""
    if not settings.smooth:
        return values
    from scipy.ndimage import gaussian_filter

    # A hot pixel would become a bright disc.
    low, high = percentile_limits(values[np.isfinite(values)], settings.percentiles)
    measured = ~np.isnan(values)
    clipped = np.clip(np.where(measured, values, 0), low, high) * measured
    weights = gaussian_filter(measured.astype(np.float64), settings.smooth, mode="nearest")
    smoothed = gaussian_filter(clipped, settings.smooth, mode="nearest") / np.maximum(weights, 1e-12)
    return np.where(measured, smoothed, np.nan)


def _value_limits(values: np.ndarray, settings: FitsSettings) -> tuple[float, float]:
    """The values shown as black and as white."""
    from astropy.visualization import ZScaleInterval

    if settings.stretch == "zscale":
        low, high = ZScaleInterval().get_limits(values)  # it samples by position and skips NaN itself
        if low < high:
            return float(low), float(high)
    return percentile_limits(values[np.isfinite(values)], settings.percentiles)


def _apply_curve(levels: np.ndarray, settings: FitsSettings) -> np.ndarray:
    from astropy import visualization as stretches

    curves: dict[str, Any] = {
        "asinh": stretches.AsinhStretch(settings.softening),
        "log": stretches.LogStretch(),
        "sqrt": stretches.SqrtStretch(),
    }
    return curves[settings.stretch](levels) if settings.stretch in curves else levels


def _stretch(values: np.ndarray, settings: FitsSettings) -> np.ndarray:
    return _apply_curve(shares(values, *_value_limits(values, settings)), settings)


def _stretch_colour(planes: list[np.ndarray], settings: FitsSettings) -> np.ndarray:
    """(rows, columns, 3) levels: only the intensity is stretched, so hues stay [arXiv:astro-ph/0312483].

    The black level of each band is subtracted. A pixel that would be brighter than white is scaled down in
    all bands, so that a bright core keeps its colour.
    """
    signal = [plane - _value_limits(plane, settings)[0] for plane in planes]
    signal = [np.clip(np.nan_to_num(band, nan=0.0, posinf=0.0), 0, None) for band in signal]
    intensity = np.mean(signal, axis=0)
    white = _value_limits(intensity, settings)[1]
    if white <= 0:
        return np.zeros((*intensity.shape, 3))
    # Not clipped at 1: a core must not become darker than its surroundings.
    factor = np.arcsinh(intensity / white / settings.softening) / np.arcsinh(1 / settings.softening)
    factor = np.divide(factor, intensity, out=np.zeros_like(factor), where=intensity > 0)
    colour = np.dstack([band * factor for band in signal])
    scaled: np.ndarray = colour / np.maximum(1, colour.max(axis=2, keepdims=True))
    return scaled
