"""Where a classifier errs, as tables: confusion matrices, scores by class, worst subgroups. No verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.evaluation.diagnostics import ClassScores, ConfusionMatrix, Diagnostics
from domainclip.evaluation.evaluate import ComparedDiagnostics, Evaluation
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import class_curves, phrasing

_MATRIX = 20  # number of classes from which the most confused pairs stand alone
_PAIRS = 10
_LEVELS = 6  # of shading
_WORST = 5  # subgroups of one metric


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix: the number of items, and its shade by the share of its row."""

    count: str
    level: int
    right: bool  # on the diagonal


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of one model: a row for each true class."""

    model: str
    rows: Sequence[tuple[str, Sequence[Cell]]]


@dataclass(frozen=True)
class ConfusedPair:
    """Items of one class that got another as the answer."""

    truth: str
    answer: str
    count: str  # "31 → 12", of both models
    of: str  # items of the class


@dataclass(frozen=True)
class ClassLine:
    """The scores of one class, "before → after"."""

    name: str
    items: str
    groups: str
    recall: str
    precision: str
    f1: str
    auroc: str


@dataclass(frozen=True)
class ErrorSection:
    """Where the models err by one probe on one set."""

    title: str
    confusions: Sequence[Confusion]
    pairs: Sequence[ConfusedPair]
    lines: Sequence[ClassLine]
    curves: Sequence[class_curves.CurvePair]
    points: Sequence[class_curves.PointLine]
    recall_name: str = "recall"  # as the card of the corpus calls them
    precision_name: str = "precision"


@dataclass(frozen=True)
class SubgroupLine:
    """One of the worst subgroups of a metric."""

    name: str
    n: str
    groups: str
    values: str


@dataclass(frozen=True)
class Subgroups:
    """The worst subgroups of one metric on one set; `luck` is the gap that noise alone gives, in words."""

    title: str
    of: int
    lines: Sequence[SubgroupLine]
    luck: str


def sections(evaluation: Evaluation) -> list[ErrorSection]:
    """One section for each probe and set with diagnostics; empty parts are left out by the template."""
    found = (_section(compared) for compared in evaluation.diagnostics)
    return [section for section in found if section.lines or section.pairs or section.curves]


def worst_subgroups(evaluation: Evaluation) -> list[Subgroups]:
    """The worst cells of each metric of the probe `subgroups`, by the last model."""
    return list(_worst_subgroups(evaluation))


def _section(compared: ComparedDiagnostics) -> ErrorSection:
    models = compared.models
    matrices = [model.confusion for model in models if model.confusion is not None]
    same = len(matrices) == len(models) and all(m.classes == matrices[0].classes for m in matrices)
    small = same and len(matrices[0].classes) < _MATRIX
    return ErrorSection(
        title=f"{phrasing.probe_name(compared.probe)} on {compared.dataset}",
        confusions=[_confusion(m, name) for m, name in zip(matrices, _names(models), strict=True)]
        if small
        else [],
        pairs=_pairs(matrices) if same else [],
        lines=_class_lines(models),
        curves=class_curves.pairs(models),
        points=class_curves.points(models),
        recall_name=phrasing.metric_name(models[0].recall_name),
        precision_name=phrasing.metric_name(models[0].precision_name),
    )


def _names(models: Sequence[Diagnostics]) -> Sequence[str]:
    return ("Base", "Adapted") if len(models) == 2 else ("The model",)


def _confusion(matrix: ConfusionMatrix, model: str) -> Confusion:
    totals = matrix.counts.sum(axis=1)
    rows = []
    for i, name in enumerate(matrix.classes):
        cells = []
        for j, count in enumerate(matrix.counts[i].tolist()):
            share = count / totals[i] if totals[i] else 0.0
            cells.append(Cell(_count(count), math.ceil(share * _LEVELS - 1e-9), i == j))
        rows.append((name, cells))
    return Confusion(model, rows)


def _pairs(matrices: Sequence[ConfusionMatrix]) -> list[ConfusedPair]:
    """The most frequent confusions of the last model, with those of the first."""
    last = matrices[-1].counts.astype(float).copy()
    np.fill_diagonal(last, 0)
    order = np.argsort(-last, axis=None, kind="stable")[:_PAIRS]
    names, totals = matrices[-1].classes, matrices[-1].counts.sum(axis=1)
    places = [np.unravel_index(place, last.shape) for place in order if last.flat[place] > 0]
    return [
        ConfusedPair(
            names[i],
            names[j],
            _arrow([_count(float(m.counts[i, j])) for m in matrices]),
            _count(float(totals[i])),
        )
        for i, j in places
    ]


def _class_lines(models: Sequence[Diagnostics]) -> list[ClassLine]:
    """The classes that every model has, in ascending order of the recall of the last one."""
    by_model = [{scores.name: scores for scores in model.classes} for model in models]
    shared = [name for name in by_model[0] if all(name in scores for scores in by_model)]
    shared.sort(key=lambda name: _or_last(by_model[-1][name].recall))
    return [_class_line([scores[name] for scores in by_model]) for name in shared]


def _class_line(scores: Sequence[ClassScores]) -> ClassLine:
    first = scores[0]
    return ClassLine(
        first.name,
        str(first.items),
        str(first.groups),
        *(
            _arrow([phrasing.number(getattr(one, name)) for one in scores])
            for name in ("recall", "precision", "f1", "auroc")
        ),
    )


def _worst_subgroups(evaluation: Evaluation) -> Iterator[Subgroups]:
    rows = [row for row in evaluation.rows if row.probe == "subgroups" and row.part and not row.biased]
    for dataset, metric in dict.fromkeys((row.dataset, row.whole) for row in rows):
        cells = [row for row in rows if (row.dataset, row.whole) == (dataset, metric)]
        cells.sort(key=lambda row: _or_last(_last(row) if row.higher_is_better else -_last(row)))
        yield Subgroups(
            f"{phrasing.metric_name(metric)} on {dataset}",
            len(cells),
            [_subgroup_line(row) for row in cells[:_WORST]],
            _gap_by_luck(evaluation, dataset, metric),
        )


def _subgroup_line(row: ComparisonRow) -> SubgroupLine:
    values = [phrasing.number(row.base.value, row.unit)]
    values += [phrasing.number(row.adapted.value, row.unit)] if row.adapted else []
    return SubgroupLine(row.part, str(row.n), str(row.groups), _arrow(values))


def _gap_by_luck(evaluation: Evaluation, dataset: str, metric: str) -> str:
    """The gaps between cells that equal groups would show, in words; empty where they were not computed."""
    details: Mapping[str, object] = next(
        (
            entry["details"]
            for entry in evaluation.protocol
            if (entry["probe"], entry["dataset"]) == ("subgroups", dataset)
        ),
        {},
    )
    gaps = details.get("gap_by_luck")
    if not isinstance(gaps, Mapping) or details.get("figure") != metric:  # it was computed for one metric
        return ""
    return ", ".join(f"{name} {phrasing.number(gap)}" for name, gap in gaps.items() if isinstance(gap, float))


def _last(row: ComparisonRow) -> float:
    return (row.adapted or row.base).value


def _or_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _arrow(values: Sequence[str]) -> str:
    return " → ".join(values)


def _count(count: float) -> str:
    return f"{round(count, 1):g}"
