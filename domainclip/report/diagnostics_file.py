"""The format of the diagnostics in results.json: where each model errs, by probe and set. No verdicts."""

from __future__ import annotations

import math

import numpy as np

from domainclip.evaluation.diagnostics import (
    ClassCurves,
    ClassScores,
    ConfusionMatrix,
    Diagnostics,
    OperatingPoint,
)
from domainclip.evaluation.evaluate import ComparedDiagnostics
from domainclip.report.strict_file import Strict, finite


class Confusion(Strict):
    """How often items of each class got each answer; ties count in parts."""

    classes: list[str]
    # The cells that are not 0, as a matrix of a thousand classes is almost empty: number of the true class,
    # number of the answer, items.
    cells: list[tuple[int, int, float]]


class Scores(Strict):
    """One class; null where a score is undefined."""

    name: str
    items: int
    groups: int
    answers: float | None  # items that were given this class
    recall: float | None
    precision: float | None
    f1: float | None
    auroc: float | None


class Point(Strict):
    """What the threshold that validation chose gives on the measured items."""

    threshold: float | None
    sensitivity: float | None
    specificity: float | None
    positive_predictive_value: float | None
    negative_predictive_value: float | None
    prevalence: float | None


class Curves(Strict):
    """ROC and precision-recall curve of one class, at the same thresholds."""

    name: str
    false_positive_rate: list[float | None]
    sensitivity: list[float | None]
    precision: list[float | None]
    prevalence: float | None
    point: Point | None


class ModelErrors(Strict):
    """Where one model errs."""

    confusion: Confusion | None  # null for several classes an item
    classes: list[Scores]
    curves: list[Curves]


class ErrorsResult(Strict):
    """Where the models err by one probe on one set."""

    probe: str
    dataset: str
    base: ModelErrors
    adapted: ModelErrors | None  # null for a single model


def to_errors(compared: ComparedDiagnostics) -> ErrorsResult:
    """The diagnostics of one or two models in the format of the file."""
    base, *others = [model_errors(model) for model in compared.models]
    return ErrorsResult(
        probe=compared.probe, dataset=compared.dataset, base=base, adapted=others[0] if others else None
    )


def model_errors(model: Diagnostics) -> ModelErrors:
    """The diagnostics of one model in the format of the file."""
    return ModelErrors(
        confusion=None if model.confusion is None else _confusion(model.confusion),
        classes=[_scores(scores) for scores in model.classes],
        curves=[_curves(curves) for curves in model.curves],
    )


def _confusion(matrix: ConfusionMatrix) -> Confusion:
    counts = np.round(matrix.counts.astype(float), 4)
    cells = [(truth, answer, float(counts[truth, answer])) for truth, answer in np.argwhere(counts).tolist()]
    return Confusion(classes=list(matrix.classes), cells=cells)


def _scores(scores: ClassScores) -> Scores:
    return Scores(
        name=scores.name,
        items=scores.items,
        groups=scores.groups,
        answers=finite(scores.answers),
        recall=finite(scores.recall),
        precision=finite(scores.precision),
        f1=finite(scores.f1),
        auroc=finite(scores.auroc),
    )


def _curves(curves: ClassCurves) -> Curves:
    return Curves(
        name=curves.name,
        false_positive_rate=_rounded(curves.false_positive_rate),
        sensitivity=_rounded(curves.sensitivity),
        precision=_rounded(curves.precision),
        prevalence=finite(curves.prevalence),
        point=None if curves.point is None else _point(curves.point),
    )


def _point(point: OperatingPoint) -> Point:
    return Point(**{name: finite(getattr(point, name)) for name in Point.model_fields})


def _rounded(values: np.ndarray) -> list[float | None]:
    """Four decimals: a curve is drawn, and the file stays small."""
    return [round(value, 4) if math.isfinite(value) else None for value in values.tolist()]
