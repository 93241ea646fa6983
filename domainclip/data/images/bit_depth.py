"""Pixels of more than 8 bits, of 32-bit integers and of floats as 8-bit levels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from domainclip.config.strict_model import StrictModel
from domainclip.data.images.value_limits import Percentiles, percentile_limits

_STRIP_PIXELS = 2**20  # whose levels are computed at once: all at once would take 8 bytes a pixel
_SAMPLE_PIXELS = 2**22  # evenly spaced, of which percentiles are computed
# Images of 12-bit detectors are stored in 16 bits.
_DEPTHS = (8, 12, 16)
# Where 99 % of the pixels have less than this share of the range, a few pixels decide it.
_MIN_USED_RANGE = 0.25
# Of the values of a colour image, those that may lie above its depth: hot pixels.
_MAX_ABOVE_DEPTH = 0.001


class BitDepthSettings(StrictModel):
    """Grey levels of images of more than 8 bits: `images.bit_depth` of a card, or keys in a location."""

    # depth: by 8, 12 or 16 bits; range: from the lowest to the highest value; percentiles: between two.
    # auto: by depth, or by range where values are of 32 bits, negative or floats; but by percentiles where
    # 99 % of the pixels use less than a quarter of that.
    scaling: Literal["auto", "depth", "range", "percentiles"] = "auto"
    percentiles: Percentiles = (0.5, 99.5)  # of the finite values: black, white

    def fragment(self) -> dict[str, str]:
        """The settings that differ from the defaults, as keys of a location."""
        changed = self.model_dump(exclude_defaults=True).items()
        return {k: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in changed}


DEFAULT = BitDepthSettings()


class NoFiniteValue(ValueError):
    """An image of floats without a finite value."""


def grey_levels(
    values: np.ndarray, settings: BitDepthSettings = DEFAULT, inverted: bool = False
) -> np.ndarray:
    """(rows, columns) uint8 of grey values of any type; `inverted` where the lowest value is white.

    NaN was not measured: it is black, and does not affect the range.

    Raises: NoFiniteValue.
    """
    low, high = grey_limits(values, settings)
    levels = np.zeros(values.shape, np.uint8)
    if high <= low:  # a single level
        return levels
    height = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), height):
        strip = values[top : top + height].astype(np.float64)
        with np.errstate(over="ignore"):
            shares = np.clip((strip - low) / (high - low), 0, 1)
        shares = np.nan_to_num(1 - shares if inverted else shares, nan=0.0)
        levels[top : top + height] = np.rint(shares * 255).astype(np.uint8)
    return levels


def grey_limits(values: np.ndarray, settings: BitDepthSettings = DEFAULT) -> tuple[float, float]:
    """The grey values shown as black and as white.

    Raises: NoFiniteValue.
    """
    low, high, integers = _range(values)
    depth = next((bits for bits in _DEPTHS if high < 2**bits), None)
    if settings.scaling in ("auto", "depth") and integers and low >= 0 and depth is not None:
        low, high = 0.0, float(2**depth - 1)
    if settings.scaling in ("auto", "percentiles"):
        sample = values.reshape(-1)[:: max(1, values.size // _SAMPLE_PIXELS)]
        black, white = percentile_limits(sample[np.isfinite(sample)], settings.percentiles)
        few_pixels = white - black < _MIN_USED_RANGE * (high - low)
        if black < white and (few_pixels or settings.scaling == "percentiles"):
            return black, white
    return low, high


def _range(values: np.ndarray) -> tuple[float, float, bool]:
    """The lowest and the highest finite value, and whether all are whole numbers."""
    low, high, integers = np.inf, -np.inf, True
    height = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), height):
        strip = values[top : top + height]
        finite = strip[np.isfinite(strip)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            integers = integers and bool((finite == np.rint(finite)).all())
    if low > high:
        raise NoFiniteValue
    return low, high, integers


def colour_levels(values: np.ndarray) -> np.ndarray:
    """(rows, columns, channels) uint8 of colours of any type, all channels scaled alike.

    Whole numbers lose their low bits, by the first of 8, 12 and 16 bits that holds 999 of 1,000 values;
    floats from 0 to 1 are shares of white, and all others are stretched from the lowest to the highest.

    Raises: NoFiniteValue.
    """
    low, high, integers = _range(values.reshape(len(values), -1))
    if integers and low >= 0 and high < 2**16:
        pixels = values.reshape(-1, values.shape[-1])
        sample = pixels[:: max(1, len(pixels) // _SAMPLE_PIXELS)]
        brightest = np.quantile(sample, 1 - _MAX_ABOVE_DEPTH, method="higher")
        depth = next(bits for bits in _DEPTHS if brightest < 2**bits)
        limited = np.minimum(values, 2**depth - 1).astype(np.uint16)
        return np.asarray(limited >> (depth - 8), np.uint8)
    if integers or low < 0 or high > 1:
        return grey_levels(values.reshape(len(values), -1)).reshape(values.shape)
    return np.asarray(np.rint(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 255), np.uint8)
