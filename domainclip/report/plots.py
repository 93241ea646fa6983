"""Charts of two axes, in per cent of their box: reliability, figures over a number, how far to go."""

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

    kind: str  # "base" or "adapted": how it is drawn
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


def reliability(title: str, details: Mapping[str, Any], changed: Mapping[str, Any]) -> Lines | None:
    """How often each model is right where it says it is this sure; None when nothing was measured."""
    known = {"base": details.get("reliability"), "adapted": changed.get("reliability")}
    series = [
        Series(kind, dots, f"{kind}: {_told(points)}")
        for kind, points in known.items()
        if points and (dots := [_reliable(point, points) for point in points])
    ]
    if not series:
        return None
    ticks = [Tick(100 * i / 4, f"{i / 4:g}") for i in range(5)]
    down = [Tick(100 - tick.at, tick.label) for tick in ticks]
    return Lines(title, series, ticks, down, True, None, "confidence", "accuracy")


def over_numbers(rows: Sequence[ComparisonRow]) -> Lines | None:
    """Parts that differ by a number, as 1-shot and 16-shot, over that number; None when they do not."""
    numbers = [re.fullmatch(r"(\d+(?:\.\d+)?)[-\s]?(\w*)", row.part) for row in rows]
    if len(rows) < 2 or any(found is None for found in numbers):
        return None
    at = [float(found[1]) for found in numbers if found]
    units = {found[2] for found in numbers if found}
    if len(units) > 1 or len(set(at)) < len(at):
        return None
    top = max(
        edge
        for row in rows
        for f in (row.base, row.adapted)
        if f
        for edge in (f.value, f.high, 0)
        if not math.isnan(edge)
    )
    step, top = round_axis(top)
    # Numbers such as 1, 2, 4, 8, 16 stand evenly: what doubles is one step.
    order = sorted(at)
    across = {value: round(4 + 92 * place / (len(order) - 1), 2) for place, value in enumerate(order)}
    series = []
    for kind, pick in (("base", lambda row: row.base), ("adapted", lambda row: row.adapted)):
        figures = [
            (value, pick(row)) for value, row in sorted(zip(at, rows, strict=True), key=lambda one: one[0])
        ]
        if any(figure is None or math.isnan(figure.value) for _, figure in figures):
            continue
        dots = [_dot(across[value], figure, top) for value, figure in figures]
        spoken = ", ".join(f"{value:g}: {phrasing.number(figure.value)}" for value, figure in figures)
        series.append(Series(kind, dots, f"{kind} at {spoken}"))
    ticks = [Tick(across[value], f"{value:g}") for value in order]
    down = [Tick(100 - 100 * i * step / top, f"{i * step:g}") for i in range(round(top / step) + 1)]
    (unit,) = units
    return Lines("", series, ticks, down, x_name=f"{unit}s" if unit else "") if series else None


def interpolation(facts: Mapping[str, Any]) -> Lines | None:
    """What each distance from the base reached on the validation split, the chosen one last said."""
    tried = dict(facts.get("interpolation") or {}).get("validation") or {}
    points = [(float(alpha), float(score)) for alpha, score in tried.items() if math.isfinite(float(score))]
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
    said = ", ".join(f"{alpha:g}: {score:.3f}" for alpha, score in points)
    across = [Tick(100 * value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    swept = facts["interpolation"]
    chosen, by = (
        swept.get("alpha"),
        "validation" + ("" if swept.get("floor") is None else ", above a minimum"),
    )
    title = f"Weight interpolation (α = {chosen:g}, chosen on {by})" if chosen is not None else "α"
    return Lines(title, [Series("adapted", dots, said)], across, ticks, x_name="α", y_name="validation score")


def _reliable(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Dot:
    most = max(float(one["n"]) for one in points) or 1.0
    y = round(100 - 100 * float(point["accuracy"]), 2)
    return Dot(
        round(100 * float(point["confidence"]), 2), y, y, y, round(2.5 + 4 * math.sqrt(point["n"] / most), 2)
    )


def _told(points: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"confidence {p['confidence']:.2f}, accuracy {p['accuracy']:.2f}, n {p['n']}" for p in points
    )


def _dot(x: float, figure: Estimate, top: float) -> Dot:
    def down(value: float) -> float:
        return round(100 - 100 * value / top, 2)

    if math.isnan(figure.low):
        return Dot(x, down(figure.value), down(figure.value), down(figure.value))
    return Dot(x, down(figure.value), down(figure.low), down(figure.high))
