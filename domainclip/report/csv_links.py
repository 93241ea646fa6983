"""The metrics as CSV, embedded in the page for further analysis."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing
from domainclip.report.context import ReportContext

_MODELS = ("base", "adapted")
_COMMANDS = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula in a spreadsheet


def links(evaluation: Evaluation, context: ReportContext) -> list[tuple[str, str, Markup]]:
    """Label, file name and data address of each download."""
    valid = evaluation.valid and not context.invalid
    tables = [("metrics", "metrics.csv", _metrics(evaluation.rows, valid))]
    if any(model.classes for compared in evaluation.diagnostics for model in compared.models):
        tables.append(("classes", "classes.csv", _classes(evaluation)))
    if any(model.confusion for compared in evaluation.diagnostics for model in compared.models):
        tables.append(("confusions", "confusions.csv", _confusions(evaluation)))
    if context.training:
        tables.append(("training steps", "training.csv", _training(context)))
    return [(label, name, address(text)) for label, name, text in tables]


def address(text: str, kind: str = "csv") -> Markup:
    """A text file as a data: URI; every character that could end an attribute is escaped."""
    content = "\ufeff" + text if kind == "csv" else text  # spreadsheets tell UTF-8 by the mark
    return Markup("data:text/{};charset=utf-8,{}").format(kind, Markup(quote(content, safe="")))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file in which no text cell is a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, str):
        return "" if value != value else value  # NaN is empty
    text = str(phrasing.plain(value))
    return f"'{text}" if text.lstrip(" ").startswith(_COMMANDS) else text


_FACTS = [
    "probe",
    "set",
    "metric",
    "part",
    "items",
    "groups",
    "headline",
    "higher_is_better",
    "unit",
    "chance",
]
_JUDGEMENT = ["p", "adjusted_p", "comparisons", "at_most_lost", "margin", "verdict"]
_REASONS = ["not_judged", "no_interval", "base_by_luck", "adapted_by_luck"]


def _metrics(rows: Sequence[ComparisonRow], valid: bool) -> str:
    estimates = [
        f"{model}{end}" for model in ("base", "adapted", "difference") for end in ("", "_low", "_high")
    ]
    return table([*_FACTS, *estimates, *_JUDGEMENT, *_REASONS], (_line(row, valid) for row in rows))


def _line(row: ComparisonRow, valid: bool) -> list[Any]:
    line: list[Any] = [row.probe, row.dataset, row.whole, row.part, row.n, row.groups]
    line += [str(row.primary).lower(), str(row.higher_is_better).lower(), row.unit, row.chance]
    for estimate in (row.base, row.adapted, row.shown):
        line += [None, None, None] if estimate is None else [estimate.value, estimate.low, estimate.high]
    p = row.difference.p if row.difference else None
    line += [p, row.adjusted_p, row.comparisons, row.at_most_lost, row.margin]
    line += [(row.verdict or "") if valid else "not valid", row.control_fault, row.too_few]
    return line + [*row.by_luck, None, None][:2]


def _classes(evaluation: Evaluation) -> str:
    """The scores of each class, a line for each model."""
    names = ["items", "groups", "answers", "recall", "precision", "f1", "auroc"]
    body = [
        [compared.probe, compared.dataset, model, scores.name, *(getattr(scores, name) for name in names)]
        for compared in evaluation.diagnostics
        for model, errors in zip(_MODELS, compared.models, strict=False)
        for scores in errors.classes
    ]
    return table(["probe", "set", "model", "class", *names], body)


def _confusions(evaluation: Evaluation) -> str:
    """The confusion matrices, a line for each pair of classes that occurs."""
    body = [
        [compared.probe, compared.dataset, model, truth, answer, count]
        for compared in evaluation.diagnostics
        for model, errors in zip(_MODELS, compared.models, strict=False)
        if errors.confusion is not None
        for truth, row in zip(errors.confusion.classes, errors.confusion.counts.tolist(), strict=True)
        for answer, count in zip(errors.confusion.classes, row, strict=True)
        if count
    ]
    return table(["probe", "set", "model", "true_class", "answer", "items"], body)


def _training(context: ReportContext) -> str:
    lines = [
        {key: value for key, value in line.items() if not isinstance(value, dict)}
        for line in context.training
    ]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return table(keys, ([line.get(key) for key in keys] for line in lines))
