"""Evaluations and contexts with fixed values, for tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from domainclip.evaluation.diagnostics import (
    ClassCurves,
    ClassScores,
    ConfusionMatrix,
    Diagnostics,
    OperatingPoint,
)
from domainclip.evaluation.evaluate import ComparedDiagnostics, Evaluation
from domainclip.evaluation.metrics.first_answers import Answer
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, SAME, UNKNOWN, WORSE, ComparisonRow
from domainclip.report.context import (
    CorpusFacts,
    Example,
    ExampleGroup,
    Examples,
    ModelAnswers,
    ReportContext,
    RunFacts,
)

NAN = float("nan")
# An image of one pixel, as the examples of a report are real images.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f"
    "0005fe02fe0def46b80000000049454e44ae426082"
)


def change(value: float, p: float) -> Change:
    """A normal difference with this p."""
    return Change(value, value, (value / norm.isf(p / 2)) ** 2 if value and p < 1 else 1.0, np.inf)


def row(
    metric: str = "macro_accuracy",
    dataset: str = "test",
    base: tuple[float, float, float] = (0.079, 0.05, 0.11),
    adapted: tuple[float, float, float] | None = (0.554, 0.5, 0.61),
    difference: tuple[float, float, float, float] = (0.475, 0.42, 0.53, 0.001),
    verdict: str | None = BETTER,
    **facts: Any,
) -> ComparisonRow:
    """A row with a significant gain, unless other values are given; p decides about its `change`."""
    n = facts.pop("n", 8)
    value, _, _, p = difference
    defaults: dict[str, Any] = {
        "probe": "zero_shot",
        "higher_is_better": True,
        "unit": "share",
        "chance": 0.1,
        "primary": "/" not in metric,
        "n": n,
        "groups": n,
        "undefined": 0.0,
        "ids": [f"patient-{i}" for i in range(n)],
        "owners": [f"Smith^John-{i}" for i in range(n)],
        "base_scores": np.linspace(0, 1, n),
        "adapted_scores": None if adapted is None else np.ones(n),
        "change": None if adapted is None else change(value, p),
    }
    return ComparisonRow(
        metric=metric,
        dataset=dataset,
        base=Estimate(*base),
        adapted=None if adapted is None else Estimate(*adapted),
        difference=None if adapted is None else Estimate(*difference),
        verdict=None if adapted is None else verdict,
        **{**defaults, **facts},
    )


GAIN = row()
LOSS = row(
    dataset="general",
    base=(0.498, 0.47, 0.53),
    adapted=(0.058, 0.04, 0.07),
    difference=(-0.44, -0.47, -0.41, 0.001),
    verdict=WORSE,
)
ALIKE = row(
    metric="image_to_text_r1",
    probe="retrieval",
    base=(0.023, 0.01, 0.04),
    adapted=(0.026, 0.01, 0.05),
    difference=(0.003, -0.01, 0.016, 0.64),
    verdict=SAME,
)
FEW = row(
    base=(0.2, NAN, NAN),
    adapted=(0.6, NAN, NAN),
    difference=(0.4, NAN, NAN, NAN),
    verdict=UNKNOWN,
    n=4,
    too_few="there are only 4 groups: at least 6 are needed",
)
ALONE = row(adapted=None)
PART = row(metric="accuracy/Baroque", verdict=BETTER)


RUN = RunFacts(
    "locked_image",
    1000,
    4000,
    50,
    65,
    "2 CPU cores",
    128,
    {"torch": "2.13"},
    {"objectives": {"contrastive": 1.0}},
)


def evaluation(rows: Sequence[ComparisonRow] = (GAIN, ALIKE, PART, LOSS), **facts: Any) -> Evaluation:
    entry = {
        "probe": "zero_shot",
        "version": 1,
        "citation": "arXiv:2103.00020",
        "dataset": "test",
        "items": 8,
        "unreadable": 1,
        "primary": "macro_accuracy",
        "chance": {"macro_accuracy": 0.1},
        "details": {
            "ensemble": "mean_of_scores",
            "prompts": {"cat": {"positive": ["a cat"], "negative": []}},
        },
    }
    defaults = {"protocol": [entry], "warnings": [], "valid": True, "resamples": 2000, "seed": 0}
    return Evaluation(rows=list(rows), **{**defaults, **facts})


def errors(classes: Sequence[str] = ("cat", "dog")) -> ComparedDiagnostics:
    """Diagnostics of two models and two classes; the second model never answers the second class."""
    one, other = classes
    point = OperatingPoint(0.3, 0.8, 0.6, 0.4, 0.75, 0.25)
    axis = np.array([0.0, 0.5, 1.0])
    curve = ClassCurves(one, axis**2, axis, np.array([1.0, 0.75, 0.5]), 0.25, point)
    base = Diagnostics(
        ConfusionMatrix([one, other], np.array([[3, 1.5], [2, 4]])),
        [ClassScores(one, 5, 4, 5, 0.6, 0.6, 0.6, 0.7), ClassScores(other, 6, 5, 5.5, 0.67, 0.73, 0.7, 0.7)],
        [curve],
    )
    adapted = Diagnostics(
        ConfusionMatrix([one, other], np.array([[5, 0], [6, 0]])),
        [ClassScores(one, 5, 4, 11, 1.0, 0.45, 0.62, 0.9), ClassScores(other, 6, 5, 0, 0.0, NAN, 0.0, 0.9)],
        [replace(curve, sensitivity=np.array([0.0, 0.8, 1.0]))],
    )
    return ComparedDiagnostics("zero_shot", "test", [base, adapted])


def context(**facts: Any) -> ReportContext:
    defaults: dict[str, Any] = {
        "title": "Ten styles of painting",
        "command": "domainclip finetune --recipe art_paintings.yaml",
        "recipe": "name: art_paintings\nstrategy:\n  locked_image: {}\n",
        "base": {"name": "vit-tiny-clip", "revision": "3d74acf"},
        "adapted": {"name": "art_paintings-1", "weights_sha256": "5e1f2a"},
        "corpus": CorpusFacts(
            "art_paintings",
            splits={"train": (1390, 1390), "test": (354, 354)},
            quarantine={"empty caption": 2},
        ),
        "run": RUN,
        "one_run": True,
        "training": [{"step": i, "loss": 5 - i / 20, "scale": 20 + i} for i in range(1, 51)],
        "citations": ["arXiv:2111.07991"],
    }
    return ReportContext(**{**defaults, **facts})


def examples(text: str = "a cat", heat: bytes | None = None) -> Examples:
    """One image of each kind, whose caption, class and answers are a text."""
    right, wrong = Answer(text, True), Answer(text, False)
    models = [ModelAnswers(3, [wrong, right], wrong), ModelAnswers(1, [right, wrong], right)]
    groups = [
        ExampleGroup(kind, 2, [Example(PIXEL, text, text, models, heat)]) for kind in ("Newly right", text)
    ]
    return Examples([*groups, ExampleGroup("Newly wrong", 0, [])], images=8, captions=5, right=text)
