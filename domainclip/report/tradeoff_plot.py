"""The trade-off plot, in per cent of its box: gain in the domain against forgetting on the retention set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing
from domainclip.report.charts import Tick, round_axis

_NAME = 24  # maximum length of a label, for narrow pages; the tables have the full name
_REACH = 1.15  # length of an axis relative to the outermost interval


@dataclass(frozen=True)
class Cross:
    """A point with intervals on both axes."""

    label: str
    spoken: str
    x: float
    x_low: float
    x_high: float
    y: float  # from the top
    y_low: float
    y_high: float
    name_y: float  # of the label, without overlap


@dataclass(frozen=True)
class Stop:
    """The weights interpolated with one α."""

    label: str  # empty where it would overlap a more important one
    x: float
    y: float
    chosen: bool


@dataclass(frozen=True)
class Plane:
    """Change in the domain (vertical) against change on the retention set (horizontal)."""

    points: Sequence[Cross]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_zero: float
    y_zero: float
    path: Sequence[Stop] = ()
    path_spoken: str = ""
    path_of: str = ""  # name of the metric of the path
    left_out: str = ""  # names of the probes that are not drawn, since a control failed


def plane(
    rows: Sequence[ComparisonRow], retention_set: str, facts: Mapping[str, Any] | None = None
) -> Plane | None:
    """Each probe's headline metric in the domain against the same on the retention set; None without both.

    A metric whose control failed on either set is not drawn, but named in `left_out`.

    The values of α in the `facts` of the run are drawn as a path.
    """
    head = {(row.probe, row.dataset == retention_set): row for row in reversed(rows) if row.primary}
    pairs = [
        (row, head[probe, True])
        for (probe, retention), row in head.items()
        if not retention and (probe, True) in head
    ]
    failed = [phrasing.probe_name(pair[0].probe) for pair in pairs if any(row.control_fault for row in pair)]
    pairs = [pair for pair in reversed(pairs) if all(_drawable(row) for row in pair)]
    named = [
        (phrasing.probe_name(inside.probe), _upward(inside), _upward(outside)) for inside, outside in pairs
    ]
    if not named:
        return None
    drawn = plane_of(named, dict((facts or {}).get("interpolation") or {}))
    return replace(drawn, left_out=", ".join(reversed(failed)))


def plane_of(
    named: Sequence[tuple[str, Estimate, Estimate]], interpolation: Mapping[str, Any] | None = None
) -> Plane:
    """The plot of names with their gain and their retention; positive is better for both."""
    gains, losses = [gain for _, gain, _ in named], [loss for _, _, loss in named]
    steps = _steps(interpolation or {})
    reach_y = _REACH * max([_reach(gains), *(abs(gain) for _, gain, _ in steps)])
    reach_x = _REACH * max([_reach(losses), *(abs(loss) for _, _, loss in steps)])
    across, down = (
        [_at(estimate.value, reach) for estimate in axis]
        for axis, reach in ((losses, reach_x), (gains, reach_y))
    )
    names = _apart([(x, 100 - y) for x, y in zip(across, down, strict=True)])
    points = [
        Cross(
            label=name if len(name) <= _NAME else f"{name[: _NAME - 1].rstrip()}…",
            spoken=f"{name}: domain {_in_words(gain)}, retention {_in_words(loss)}",
            x=_at(loss.value, reach_x),
            x_low=_at(loss.low, reach_x),
            x_high=_at(loss.high, reach_x),
            y=100 - _at(gain.value, reach_y),
            y_low=100 - _at(gain.low, reach_y),
            y_high=100 - _at(gain.high, reach_y),
            name_y=name_y,
        )
        for (name, gain, loss), name_y in zip(named, names, strict=True)
    ]
    chosen = (interpolation or {}).get("alpha")
    path = _legible(
        [
            Stop(f"{alpha:g}", _at(loss, reach_x), round(100 - _at(gain, reach_y), 2), alpha == chosen)
            for alpha, gain, loss in steps
        ]
    )
    spoken = ", ".join(
        f"α {alpha:g}: validation {phrasing.signed(gain)}, retention {phrasing.signed(loss)}"
        for alpha, gain, loss in steps
    )
    ticks = [Tick(round(100 - tick.at, 2), tick.label) for tick in _ticks(reach_y)]
    probe, _, metric = str((interpolation or {}).get("figure") or "").partition(" ")
    of = f"{phrasing.probe_name(probe)} {phrasing.metric_name(metric)}" if metric else ""
    return Plane(points, _ticks(reach_x), ticks, _at(0, reach_x), 100 - _at(0, reach_y), path, spoken, of)


def _apart(places: Sequence[tuple[float, float]]) -> list[float]:
    """Vertical positions of labels: one that would overlap another is moved a line down."""
    line, wide = 5.0, 50.0  # of the box
    taken: list[tuple[float, float]] = []
    heights = [0.0] * len(places)
    for number in sorted(range(len(places)), key=lambda index: places[index][1]):
        x, y = places[number]
        for other_x, other_y in sorted(taken, key=lambda place: place[1]):
            if abs(x - other_x) < wide and abs(y - other_y) < line:
                y = round(other_y + line, 2)
        taken.append((x, y))
        heights[number] = y
    return heights


def _legible(path: Sequence[Stop]) -> list[Stop]:
    """The path without overlapping labels; the chosen α has priority, then the two ends."""
    named: list[Stop] = []
    for stop in sorted(path, key=lambda stop: (not stop.chosen, stop.label not in ("0", "1"))):
        if all(abs(stop.x - other.x) > 5 or abs(stop.y - other.y) > 5 for other in named):
            named.append(stop)
    return [stop if stop in named else replace(stop, label="") for stop in path]


def _steps(interpolation: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """α, its gain on the validation split and its change on the retention set, if both are shares."""
    inside, outside = (dict(interpolation.get(key) or {}) for key in ("validation", "general"))
    if interpolation.get("unit") != "share" or "0.0" not in inside or "0.0" not in outside:
        return []
    return [
        (float(alpha), inside[alpha] - inside["0.0"], outside[alpha] - outside["0.0"])
        for alpha in inside
        if alpha in outside and math.isfinite(inside[alpha]) and math.isfinite(outside[alpha])
    ]


def _drawable(row: ComparisonRow) -> bool:
    drawn = row.shown is not None and not math.isnan(row.shown.low)
    return drawn and row.unit == "share" and not row.control_fault


def _upward(row: ComparisonRow) -> Estimate:
    """The change, with the sign such that positive is better."""
    change = row.shown
    assert change is not None
    return change if row.higher_is_better else Estimate(-change.value, -change.high, -change.low, change.p)


def _reach(estimates: Sequence[Estimate]) -> float:
    return max(
        [
            0.02,
            *(abs(edge) for estimate in estimates for edge in (estimate.value, estimate.low, estimate.high)),
        ]
    )


def _at(value: float, reach: float) -> float:
    return round(50 + 50 * value / reach, 2)


def _ticks(reach: float) -> list[Tick]:
    step, _ = round_axis(reach * 1.6)
    most = math.floor(reach / step + 1e-9)
    return [
        Tick(_at(i * step, reach), phrasing.signed(i * step).rstrip("0").rstrip(".") if i else "0")
        for i in range(-most, most + 1)
    ]


def _in_words(change: Estimate) -> str:
    return f"{phrasing.signed(change.value)} ({phrasing.span(change, sign=True)})"
