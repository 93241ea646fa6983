"""Where a classifier errs, as data for tables and charts: descriptions, which are never judged.

Legend: c classes, k thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often items of each class got each answer."""

    classes: Sequence[str]  # (c,)
    counts: np.ndarray  # (c, c) items: row of the true class, column of the answer; ties count in parts


@dataclass(frozen=True)
class ClassScores:
    """One class of a classifier; NaN where a score is undefined, such as the precision without answers.

    Of several classes an item, answers, recall, precision and F1 are those at the threshold of the class; NaN
    without one. Below ten items of the class all scores are NaN, since they would be noise.
    """

    name: str
    items: int  # of this class
    groups: int  # with such an item
    answers: float  # measured items that were given this class; ties count in parts
    recall: float
    precision: float
    f1: float
    auroc: float  # this class against all others


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold that was chosen on validation, and what it gives on the measured items."""

    threshold: float
    sensitivity: float
    specificity: float
    positive_predictive_value: float
    negative_predictive_value: float
    prevalence: float  # of the measured items, on which both predictive values depend


@dataclass(frozen=True)
class ClassCurves:
    """The ROC and the precision-recall curve of one class, thinned to at most 200 thresholds.

    The first threshold is above all scores: there the precision is that of the next, as the area counts it.
    """

    name: str
    false_positive_rate: np.ndarray  # (k,) rising
    sensitivity: np.ndarray  # (k,) of the same thresholds; also the recall
    precision: np.ndarray  # (k,) of the same thresholds
    prevalence: float
    point: OperatingPoint | None = None  # None without a validation split


@dataclass(frozen=True)
class Diagnostics:
    """What one probe shows of one model on one set beside its metrics."""

    confusion: ConfusionMatrix | None = None  # None for several classes an item
    classes: Sequence[ClassScores] = field(default_factory=tuple)
    curves: Sequence[ClassCurves] = field(default_factory=tuple)
    # What the readers of the corpus call them, as its metrics are named: completeness and purity.
    recall_name: str = "recall"
    precision_name: str = "precision"
