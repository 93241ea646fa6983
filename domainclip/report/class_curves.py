"""The ROC and the precision-recall curve of each class, as lines in a box of 100 by 100."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.evaluation.diagnostics import ClassCurves, Diagnostics, OperatingPoint
from domainclip.report import phrasing


@dataclass(frozen=True)
class CurveLine:
    """The curve of one model, and its operating point if there is one."""

    kind: str  # "base" or "adapted": the style
    points: str  # of an SVG polyline, from the top
    at: tuple[float, float] | None


@dataclass(frozen=True)
class Box:
    """One chart: a curve for each model."""

    name: str  # "ROC" or "precision-recall"
    x_name: str
    y_name: str
    lines: Sequence[CurveLine]
    chance: tuple[float, float]  # left and right end of the line of chance, from the top
    spoken: str


@dataclass(frozen=True)
class CurvePair:
    """Both charts of one class."""

    title: str
    boxes: Sequence[Box]


@dataclass(frozen=True)
class PointLine:
    """The operating points of one class, "before → after"."""

    name: str
    sensitivity: str
    specificity: str
    positive_predictive_value: str
    negative_predictive_value: str
    prevalence: str


def pairs(models: Sequence[Diagnostics]) -> list[CurvePair]:
    """The charts of the classes that every model has, the lowest AUROC of the last model first."""
    return [
        CurvePair(_title(name, models), [_roc(curves), _precision_recall(curves)])
        for name, curves in _shared(models)
    ]


def points(models: Sequence[Diagnostics]) -> list[PointLine]:
    """The operating points of the classes where every model has one."""
    lines = []
    for name, curves in _shared(models):
        at = [curve.point for curve in curves if curve.point is not None]
        if len(at) == len(curves):
            lines.append(_point_line(name, at))
    return lines


def _shared(models: Sequence[Diagnostics]) -> Iterator[tuple[str, list[ClassCurves]]]:
    by_model = [{curve.name: curve for curve in model.curves} for model in models]
    areas = {scores.name: scores.auroc for scores in models[-1].classes}
    shared = [name for name in by_model[0] if all(name in curves for curves in by_model)]
    shared.sort(key=lambda name: area if math.isfinite(area := areas.get(name, math.inf)) else math.inf)
    for name in shared:
        yield name, [curves[name] for curves in by_model]


def _title(name: str, models: Sequence[Diagnostics]) -> str:
    areas = [scores.auroc for model in models for scores in model.classes if scores.name == name]
    if len(areas) < len(models):
        return name
    return f"{name}: AUROC {' → '.join(phrasing.number(area) for area in areas)}"


def _roc(curves: Sequence[ClassCurves]) -> Box:
    lines = [
        CurveLine(
            kind,
            _polyline(curve.false_positive_rate, curve.sensitivity),
            None if curve.point is None else _place(1 - curve.point.specificity, curve.point.sensitivity),
        )
        for kind, curve in zip(("base", "adapted"), curves, strict=False)
    ]
    spoken = _in_words(
        "ROC", curves, lambda p: f"sensitivity {p.sensitivity:.3f}, specificity {p.specificity:.3f}"
    )
    return Box("ROC", "1 − specificity", "sensitivity", lines, (100.0, 0.0), spoken)


def _precision_recall(curves: Sequence[ClassCurves]) -> Box:
    lines = [
        CurveLine(
            kind,
            _polyline(curve.sensitivity, curve.precision),
            None
            if curve.point is None
            else _place(curve.point.sensitivity, curve.point.positive_predictive_value),
        )
        for kind, curve in zip(("base", "adapted"), curves, strict=False)
    ]
    level = round(100 - 100 * curves[0].prevalence, 2)
    spoken = _in_words(
        "precision-recall",
        curves,
        lambda p: f"recall {p.sensitivity:.3f}, precision {p.positive_predictive_value:.3f}",
    )
    return Box("precision-recall", "recall", "precision", lines, (level, level), spoken)


def _in_words(name: str, curves: Sequence[ClassCurves], point: Callable[[OperatingPoint], str]) -> str:
    models = zip(("base", "adapted"), curves, strict=False)
    named = [f"{model} at its threshold: {point(curve.point)}" for model, curve in models if curve.point]
    return f"{name} curve of {curves[0].name}. {'; '.join(named)}"


def _polyline(x: np.ndarray, y: np.ndarray) -> str:
    """The finite points, as "x,y x,y"."""
    return " ".join(
        f"{100 * across:.1f},{100 - 100 * up:.1f}"
        for across, up in zip(x.tolist(), y.tolist(), strict=True)
        if math.isfinite(across) and math.isfinite(up)
    )


def _place(x: float, y: float) -> tuple[float, float] | None:
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    return round(100 * x, 2), round(100 - 100 * y, 2)


def _point_line(name: str, at: Sequence[OperatingPoint]) -> PointLine:
    def arrow(values: Iterable[float]) -> str:
        return " → ".join(phrasing.number(value) for value in values)

    return PointLine(
        name,
        arrow(point.sensitivity for point in at),
        arrow(point.specificity for point in at),
        arrow(point.positive_predictive_value for point in at),
        arrow(point.negative_predictive_value for point in at),
        phrasing.number(at[0].prevalence),
    )
