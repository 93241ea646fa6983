"""The values of an image that are shown as black and as white, not decided by a few of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator


def _split(value: Any) -> Any:
    """The parts of "1,99", as a location writes them."""
    return value.split(",") if isinstance(value, str) else value


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 100:
        raise ValueError("two numbers from 0 to 100, the lower first")
    return value


# The percentiles shown as black and as white: an option of images.
Percentiles = Annotated[tuple[float, float], BeforeValidator(_split), AfterValidator(_in_order)]


def percentile_limits(values: np.ndarray, percentiles: Sequence[float]) -> tuple[float, float]:
    """The values shown as black and as white: two percentiles of finite `values`.

    In a sparse image, as of counted photons, nearly all pixels have one value: both percentiles are equal,
    and the second is then that of the values above. The limits are equal if there is a single value, or none.
    """
    if not values.size:
        return 0.0, 0.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    if low < high:
        return low, high
    # "lower": between two values the smaller, so that of a few bright pixels the brightest does not decide.
    if (above := values[values > high]).size:
        return low, float(np.percentile(above, percentiles[1], method="lower"))
    if (below := values[values < low]).size:
        return float(np.percentile(below, percentiles[0], method="higher")), high
    return low, high


def shares(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Levels from 0, black, to 1, white; NaN is black, and so are all pixels when the limits are equal."""
    if high <= low:
        return np.zeros(values.shape)
    with np.errstate(over="ignore"):  # a range above the largest float
        scale = 1.0 if np.isfinite(high - low) else 0.25
    shifted = values * scale - low * scale
    return np.clip(np.nan_to_num(shifted / (high * scale - low * scale), nan=0.0), 0, 1)
