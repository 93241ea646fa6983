"""Line charts, in per cent of their box: reliability, metrics over a number, weight interpolation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing
from domainclip.report.charts import Tick, round_axis


@dataclass(frozen=True)
class Dot:
    """A point of a series, with an interval where it has one."""

    x: float
    y: float
    low: float
    high: float
    size: float = 4.0


@dataclass(frozen=True)
class Series:
    """The points of one model."""

    kind: str  # "base" or "adapted": the style
    dots: Sequence[Dot]
    spoken: str


@dataclass(frozen=True)
class Lines:
    """One or two series over a common axis."""

    title: str
    series: Sequence[Series]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    diagonal: bool = False
    chance: float | None = None
    x_name: str = ""
    y_name: str = ""


def reliability(title: str, details: Mapping[str, Any], adapted_details: Mapping[str, Any]) -> Lines | None:
    """The reliability diagram: accuracy over confidence of each model; None if it was not measured."""
    by_model = {"base": details.get("reliability"), "adapted": adapted_details.get("reliability")}
    series = [
        Series(kind, dots, f"{kind}: {_in_words(points)}")
        for kind, points in by_model.items()
        if points and (dots := [_reliability_dot(point, points) for point in points])
    ]
    if not series:
        return None
    ticks = [Tick(100 * i / 4, f"{i / 4:g}") for i in range(5)]
    down = [Tick(100 - tick.at, tick.label) for tick in ticks]
    return Lines(title, series, ticks, down, True, None, "confidence", "accuracy")


def over_numbers(rows: Sequence[ComparisonRow]) -> Lines | None:
    """Parts that differ by a number, such as 1-shot and 16-shot, over that number; None for other parts."""
    numbers = [re.fullmatch(r"(\d+(?:\.\d+)?)[-\s]?(\w*)", row.part) for row in rows]
    if len(rows) < 2 or any(match is None for match in numbers):
        return None
    at = [float(match[1]) for match in numbers if match]
    units = {match[2] for match in numbers if match}
    if len(units) > 1 or len(set(at)) < len(at):
        return None
    top = max(
        edge
        for row in rows
        for estimate in (row.base, row.adapted)
        if estimate
        for edge in (estimate.value, estimate.high, 0)
        if not math.isnan(edge)
    )
    step, top = round_axis(top)
    # Numbers such as 1, 2, 4, 8, 16 are spaced evenly: a doubling is one step.
    order = sorted(at)
    across = {value: round(4 + 92 * place / (len(order) - 1), 2) for place, value in enumerate(order)}
    series = []
    for kind, pick in (("base", lambda row: row.base), ("adapted", lambda row: row.adapted)):
        estimates = [
            (value, pick(row)) for value, row in sorted(zip(at, rows, strict=True), key=lambda pair: pair[0])
        ]
        if any(estimate is None or math.isnan(estimate.value) for _, estimate in estimates):
            continue
        dots = [_dot(across[value], estimate, top) for value, estimate in estimates]
        spoken = ", ".join(f"{value:g}: {phrasing.number(estimate.value)}" for value, estimate in estimates)
        series.append(Series(kind, dots, f"{kind} at {spoken}"))
    ticks = [Tick(across[value], f"{value:g}") for value in order]
    down = [Tick(100 - 100 * i * step / top, f"{i * step:g}") for i in range(round(top / step) + 1)]
    (unit,) = units
    return Lines("", series, ticks, down, x_name=f"{unit}s" if unit else "") if series else None


def interpolation(facts: Mapping[str, Any]) -> Lines | None:
    """The validation score over α, the weight of the adapted model; None without interpolation."""
    scores = dict(facts.get("interpolation") or {}).get("validation") or {}
    points = [(float(alpha), float(score)) for alpha, score in scores.items() if math.isfinite(float(score))]
    if len(points) < 2:
        return None
    low, high = min(score for _, score in points), max(score for _, score in points)
    room = 0.15 * (high - low) or 0.05
    low, high = low - room, high + room

    def down(score: float) -> float:
        return round(100 - 100 * (score - low) / (high - low), 2)

    dots = [Dot(round(100 * alpha, 2), down(score), down(score), down(score)) for alpha, score in points]
    step, _ = round_axis(high - low)
    first = math.ceil(low / step)
    ticks = [Tick(down(i * step), f"{i * step:g}") for i in range(first, math.floor(high / step) + 1)]
    spoken = ", ".join(f"{alpha:g}: {score:.3f}" for alpha, score in points)
    across = [Tick(100 * value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    result = facts["interpolation"]
    chosen, by = (
        result.get("alpha"),
        "validation" + ("" if result.get("floor") is None else ", above a minimum"),
    )
    title = f"Weight interpolation (α = {chosen:g}, chosen on {by})" if chosen is not None else "α"
    if towers := result.get("by_tower"):
        apart = ", ".join(f"{tower} tower {found['alpha']:g}" for tower, found in towers.items())
        title += f", then of each tower: {apart}"
    return Lines(
        title, [Series("adapted", dots, spoken)], across, ticks, x_name="α", y_name="validation score"
    )


def _reliability_dot(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Dot:
    most = max(float(other["n"]) for other in points) or 1.0
    y = round(100 - 100 * float(point["accuracy"]), 2)
    return Dot(
        round(100 * float(point["confidence"]), 2), y, y, y, round(2.5 + 4 * math.sqrt(point["n"] / most), 2)
    )


def _in_words(points: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"confidence {p['confidence']:.2f}, accuracy {p['accuracy']:.2f}, n {p['n']}" for p in points
    )


def _dot(x: float, estimate: Estimate, top: float) -> Dot:
    def down(value: float) -> float:
        return round(100 - 100 * value / top, 2)

    if math.isnan(estimate.low):
        return Dot(x, down(estimate.value), down(estimate.value), down(estimate.value))
    return Dot(x, down(estimate.value), down(estimate.low), down(estimate.high))
