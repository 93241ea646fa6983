"""The base of the models of JSON files for other programs, and the numbers in them."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from domainclip.evaluation.statistics.estimates import Estimate


class Strict(BaseModel):
    """Base of the models: no other keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(Strict):
    """A value with its 95 % interval; null where undefined."""

    value: float | None
    low: float | None
    high: float | None


def interval(estimate: Estimate) -> Interval:
    """A value with its interval as JSON: null where it is undefined."""
    return Interval(value=finite(estimate.value), low=finite(estimate.low), high=finite(estimate.high))


def finite(value: float | None) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None
