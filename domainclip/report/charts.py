"""Positions of the marks of charts, in per cent of their box; templates/charts.html.j2 draws them.

Per cent, and not a scaled drawing, so that text has the same size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing

_MARGIN = 2.0  # per cent of margin on both sides, so that a mark at the edge is not cut
_POINTS = 300  # maximum of a training curve; more would not be visible


@dataclass(frozen=True)
class Mark:
    """A value with its interval on a horizontal axis."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Dumbbell:
    """One line of a before-and-after chart."""

    label: str
    detail: str
    verdict: str
    spoken: str  # the same as text, for screen readers
    base: Mark
    adapted: Mark | None
    chance: float | None


@dataclass(frozen=True)
class Tick:
    """A line across a chart with its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Dumbbells:
    """A before-and-after chart: lines on one axis, which starts at zero."""

    lines: Sequence[Dumbbell]
    ticks: Sequence[Tick]


@dataclass(frozen=True)
class Curve:
    """A value over the training steps."""

    points: str  # of an SVG polyline in a box of 1000 by 100
    ticks: Sequence[Tick]  # from the top
    chance: float | None  # from the top
    spoken: str
    first_step: int
    last_step: int


def dumbbells(rows: Sequence[ComparisonRow], label: Callable[[ComparisonRow], str]) -> Dumbbells | None:
    """Shares of the base and the adapted model with intervals; None if no row has a share."""
    shares = [row for row in rows if row.unit == "share" and not math.isnan(row.base.value)]
    if not shares:
        return None
    step, top = round_axis(max(_reach(row) for row in shares))
    ticks = [Tick(_across(i * step, top), f"{i * step:g}") for i in range(round(top / step) + 1)]
    return Dumbbells([_dumbbell(row, label(row), top) for row in shares], ticks)


def curve(
    lines: Sequence[Mapping[str, Any]], key: str, name: str, chance: float | None = None
) -> Curve | None:
    """A curve over the training steps; None for fewer than two points. `chance` is the value at chance."""
    points = [
        (line["step"], float(line[key])) for line in lines if math.isfinite(float(line.get(key, math.nan)))
    ]
    if len(points) < 2:
        return None
    thinned = _thinned(points)
    values = [value for _, value in thinned] + ([] if chance is None else [chance])
    low, high = _bounds(values)
    first, last = thinned[0][0], thinned[-1][0]

    def down(value: float) -> float:
        return round(100 - 100 * (value - low) / (high - low), 2)

    drawn = " ".join(f"{1000 * (step - first) / (last - first):.1f},{down(value)}" for step, value in thinned)
    step, _ = round_axis(high - low)
    marks = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    spoken = f"{name} from {points[0][1]:.3g} at step {points[0][0]} to {points[-1][1]:.3g} at step {last}"
    ticks = [Tick(down(mark), f"{mark:g}") for mark in marks]
    return Curve(drawn, ticks, None if chance is None else down(chance), spoken, first, last)


def _dumbbell(row: ComparisonRow, label: str, top: float) -> Dumbbell:
    values = [f"base {phrasing.number(row.base.value)} ({phrasing.span(row.base)})"]
    if row.adapted:
        values.append(f"adapted {phrasing.number(row.adapted.value)} ({phrasing.span(row.adapted)})")
    return Dumbbell(
        label=label,
        detail=f"n {row.n}"
        + (f", {row.groups} groups" if row.groups != row.n else "")
        + (", control failed" if row.control_fault else "")
        + (f", {_luck(row)}" if row.biased and _luck(row) else ""),
        verdict=row.verdict or "",
        spoken=f"{label}: {', '.join(values)}"
        + (f", {row.verdict}" if row.verdict else "")
        + (f", since {row.control_fault}" if row.control_fault else ""),
        base=_mark(row.base, top),
        adapted=None if row.adapted is None else _mark(row.adapted, top),
        chance=None if row.chance is None else _across(row.chance, top),
    )


def _luck(row: ComparisonRow) -> str:
    """What the values would be by noise alone: "by luck 0.085 → 0.091"."""
    return " → ".join(
        text if not model else text.removeprefix("by luck ")
        for model in (0, 1)
        if (text := phrasing.luck(row, model))
    )


def _mark(estimate: Estimate, top: float) -> Mark:
    at = _across(estimate.value, top)
    if math.isnan(estimate.low):
        return Mark(at, at, at)
    return Mark(at, _across(estimate.low, top), _across(estimate.high, top))


def _across(value: float, top: float) -> float:
    return round(_MARGIN + (100 - 2 * _MARGIN) * value / top, 2)


def _reach(row: ComparisonRow) -> float:
    estimates = [row.base] + ([row.adapted] if row.adapted else [])
    return max(
        edge for estimate in estimates for edge in (estimate.value, estimate.high) if not math.isnan(edge)
    )


def round_axis(reach: float) -> tuple[float, float]:
    """A round step, and the top of the axis, for three to five ticks above zero."""
    for power in range(-6, 7):
        for digit in (1, 2, 2.5, 5):
            step = digit * 10**power
            if reach <= 5 * step:
                return step, step * max(1, math.ceil(reach / step - 1e-9))
    return reach / 4 or 1.0, reach or 1.0


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - room, high + room


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means over neighbouring steps; the first and the last point are unchanged."""
    size = math.ceil(len(points) / _POINTS)
    if size == 1:
        return list(points)
    runs = [points[i : i + size] for i in range(1, len(points) - 1, size)]
    means = [(run[len(run) // 2][0], sum(value for _, value in run) / len(run)) for run in runs]
    return [points[0], *means, points[-1]]
