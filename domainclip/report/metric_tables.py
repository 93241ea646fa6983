"""Metrics as rows of tables and lines of charts: whole metrics, and those of classes and groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import charts, phrasing, plots

CHART_LINES = 40  # maximum of one chart


@dataclass(frozen=True)
class Line:
    """One row of a table of metrics, as text."""

    name: str
    dataset: str
    n: str
    groups: str
    base: str
    base_span: str
    adapted: str
    adapted_span: str
    difference: str
    difference_span: str
    p: str
    verdict: str
    mark: str
    primary: bool


@dataclass(frozen=True)
class PartSection:
    """One metric by class, group or language."""

    title: str
    chart: charts.Dumbbells | None
    left_out: int  # number of lines that the chart leaves out
    lines: Sequence[Line]
    curve: plots.Lines | None = None  # if the parts are numbers, for example shots


def line(row: ComparisonRow) -> Line:
    """A row as text: values with intervals, the difference with its interval and p."""
    adapted, difference = row.adapted, row.shown
    return Line(
        name=phrasing.title(row),
        dataset=row.dataset,
        n=str(row.n),
        groups=str(row.groups),
        base=phrasing.number(row.base.value, row.unit),
        base_span=_span(row, 0),
        adapted=phrasing.number(adapted.value, row.unit) if adapted else "",
        adapted_span=_span(row, 1) if adapted else "",
        difference=phrasing.signed(difference.value, row.unit) if difference else "",
        difference_span=phrasing.span(difference, row.unit, sign=True)
        if difference and not row.biased
        else "",
        p=phrasing.p_values(row),
        verdict=row.verdict or "",
        mark=phrasing.MARKS.get(row.verdict or "", ""),
        primary=row.primary,
    )


def _span(row: ComparisonRow, model: int) -> str:
    """The interval of the value of one model; of a biased metric what it would be by luck instead."""
    estimate = row.adapted if model and row.adapted else row.base
    return phrasing.luck(row, model) if row.biased else phrasing.span(estimate, row.unit)


def overview(rows: Sequence[ComparisonRow]) -> list[tuple[str, charts.Dumbbells]]:
    """One chart for each set: metrics of different sets do not share an axis."""
    drawn = []
    for name in dict.fromkeys(row.dataset for row in rows):
        chart = charts.dumbbells([row for row in rows if row.dataset == name], phrasing.title)
        if chart:
            drawn.append((name, chart))
    return drawn


def parts(rows: Sequence[ComparisonRow]) -> Iterator[PartSection]:
    """Metrics by class, group and language, worst change first."""
    for key in dict.fromkeys((row.probe, row.dataset, row.whole) for row in rows if row.part):
        members = [row for row in rows if row.part and (row.probe, row.dataset, row.whole) == key]
        members.sort(key=lambda row: (row.difference.value if row.difference else row.base.value, row.part))
        curve = plots.over_numbers(members)
        chart = None
        if curve is None:
            chart = charts.dumbbells(_ends(members), lambda row: row.part)
        probe, dataset, metric = key
        title = f"{phrasing.probe_name(probe)} {phrasing.metric_name(metric)} on {dataset}"
        left_out = max(0, len(members) - CHART_LINES)
        yield PartSection(title, chart, left_out, [line(row) for row in members], curve)


def _ends(members: Sequence[ComparisonRow]) -> Sequence[ComparisonRow]:
    """The largest changes in both directions, if there are too many lines for a chart."""
    if len(members) <= CHART_LINES:
        return members
    return [*members[: CHART_LINES // 2], *members[-CHART_LINES // 2 :]]
