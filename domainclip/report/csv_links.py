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

_COMMANDS = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula in a spreadsheet


def links(evaluation: Evaluation, context: ReportContext) -> list[tuple[str, str, Markup]]:
    """Label, file name and data address of each download."""
    valid = evaluation.valid and not context.invalid
    tables = [("metrics", "metrics.csv", _metrics(evaluation.rows, valid))]
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


def _metrics(rows: Sequence[ComparisonRow], valid: bool) -> str:
    header = ["probe", "set", "metric", "part", "n", "groups", "higher_is_better", "chance"]
    for model in ("base", "adapted", "difference"):
        header += [model, f"{model}_low", f"{model}_high"]
    body = []
    for row in rows:
        line: list[Any] = [row.probe, row.dataset, row.whole, row.part, row.n, row.groups]
        line += [str(row.higher_is_better).lower(), row.chance]
        for estimate in (row.base, row.adapted, row.shown):
            line += [None, None, None] if estimate is None else [estimate.value, estimate.low, estimate.high]
        p = row.difference.p if row.difference else None
        body.append([*line, p, row.adjusted_p, (row.verdict or "") if valid else "not valid"])
    return table([*header, "p", "adjusted_p", "verdict"], body)


def _training(context: ReportContext) -> str:
    lines = [
        {key: value for key, value in line.items() if not isinstance(value, dict)}
        for line in context.training
    ]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return table(keys, ([line.get(key) for key in keys] for line in lines))
