"""The sections of a report as text and numbers, shared by the HTML and Markdown templates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.verdicts import BETTER, WORSE, ComparisonRow
from domainclip.report import charts, csv_links, phrasing, plots, provenance, tradeoff_plot
from domainclip.report.citations import linked, linked_in_markdown
from domainclip.report.context import ReportContext

_ALARM = "while training, "  # prefix of the warnings that were raised during training
_CHART_LINES = 40  # maximum of one chart
_LARGE = 2  # probes with large headline metrics; those of the others follow as sentences


@dataclass(frozen=True)
class Claim:
    """A headline metric: two numbers and a sentence about them."""

    verdict: str
    mark: str
    before: str
    after: str
    sentence: str


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
    folded: bool = False  # whether the chart is folded with the table: all but the first of a probe


def build(evaluation: Evaluation, context: ReportContext) -> dict[str, Any]:
    """The variables of the templates."""
    valid = evaluation.valid and not context.invalid
    # An invalid evaluation has no verdicts.
    rows = evaluation.rows if valid else [replace(row, verdict=None) for row in evaluation.rows]
    whole = [row for row in rows if not row.part]
    leading = list(dict.fromkeys(row.probe for row in whole))[:_LARGE]
    large = [row for row in whole if row.probe in leading]
    crowded = len(whole) > _CHART_LINES
    return {
        "title": context.title,
        "subtitle": _subtitle(context),
        "single": all(row.adapted is None for row in rows),
        "judged": any(row.verdict for row in rows),
        "valid": valid,
        "invalid": [*context.invalid, *([] if evaluation.valid else evaluation.warnings[:1])],
        "summary": phrasing.summary(rows, _subject(context), context.retention_set, valid),
        # The first probes are large, with domain and retention side by side; the rest are sentences.
        "claims": _claims(large, context.retention_set, valid),
        "more_claims": _claims(
            [row for row in whole if row.probe not in leading], context.retention_set, valid
        ),
        "plane": tradeoff_plot.plane(rows, context.retention_set, _facts(context)) if valid else None,
        "headlines": [_line(row) for row in whole if row.primary] or [_line(row) for row in whole],
        "lines": [_line(row) for row in whole],
        "worse": phrasing.changes(rows, WORSE),
        "better": phrasing.changes(rows, BETTER),
        "nothing_worse": phrasing.no_changes(rows, WORSE),
        "nothing_better": phrasing.no_changes(rows, BETTER),
        "warnings": [*evaluation.warnings, *context.warnings],
        "overview": _overview([row for row in whole if row.primary] if crowded else whole),
        "rest": _overview([row for row in whole if not row.primary]) if crowded else [],
        "parts": list(_parts(rows)),
        "reliability": _reliability(evaluation),
        "curves": _curves(context),
        "alarms": [warning for warning in context.warnings if warning.startswith(_ALARM)],
        "alphas": plots.interpolation(_facts(context)),
        "run": provenance.run(context.run),
        "corpora": [
            provenance.corpus(facts) for facts in (context.corpus, context.retention) if facts is not None
        ],
        "base": _identity(context.base),
        "adapted": _identity(context.adapted),
        "measuring": provenance.measuring(evaluation, context),
        "controls": provenance.controls(evaluation) if valid else [],
        "readings": str(context.readings) if context.readings else "",
        "readings_warning": context.readings.warning if context.readings else "",
        "external": context.external,
        "protocol": [provenance.protocol(entry) for entry in evaluation.protocol],
        "examples": [
            (kind, [provenance.example(example) for example in examples])
            for kind, examples in groupby(context.examples, lambda example: example.kind)
        ],
        "downloads": csv_links.links(evaluation, context),
        "citations": [linked(citation) for citation in dict.fromkeys(context.citations)],
        "sources": [linked_in_markdown(citation) for citation in dict.fromkeys(context.citations)],
        "command": context.command,
        "recipe": context.recipe,
    }


def _facts(context: ReportContext) -> Mapping[str, Any]:
    return context.run.facts if context.run else {}


def _subtitle(context: ReportContext) -> str:
    base = str(context.base.get("name", "a model"))
    if context.run is None:
        return f"{base}, measured on {context.corpus.name}"
    return f"{base}, adapted to {context.corpus.name} by {context.run.strategy.replace('_', ' ')}"


def _subject(context: ReportContext) -> str:
    if context.run:
        return f"adapting by {context.run.strategy.replace('_', ' ')}"
    return str(context.adapted.get("name", "the adapted model"))


def _identity(model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The facts that identify a model, as labels and texts."""
    return [
        (provenance.label(key), provenance.text(value))
        for key, value in model.items()
        if value not in (None, "")
    ]


def _claims(whole: Sequence[ComparisonRow], retention_set: str, valid: bool) -> list[Claim]:
    """The headline metrics: the domain first, then the retention set."""
    primary = sorted((row for row in whole if row.primary), key=lambda row: row.dataset == retention_set)
    return [
        Claim(
            verdict=row.verdict or "",
            mark=phrasing.MARKS.get(row.verdict or "", ""),
            before=phrasing.number(row.base.value, row.unit),
            after="" if row.adapted is None else phrasing.number(row.adapted.value, row.unit),
            sentence=phrasing.claim(row, retention_set, valid),
        )
        for row in primary
    ]


def _line(row: ComparisonRow) -> Line:
    adapted, difference = row.adapted, row.difference
    return Line(
        name=f"{phrasing.probe_name(row.probe)} {phrasing.metric_name(row.metric)}",
        dataset=row.dataset,
        n=str(row.n),
        groups=str(row.groups),
        base=phrasing.number(row.base.value, row.unit),
        base_span=phrasing.span(row.base, row.unit),
        adapted=phrasing.number(adapted.value, row.unit) if adapted else "",
        adapted_span=phrasing.span(adapted, row.unit) if adapted else "",
        difference=phrasing.signed(difference.value, row.unit) if difference else "",
        difference_span=phrasing.span(difference, row.unit, sign=True) if difference else "",
        p=phrasing.p_values(row),
        verdict=row.verdict or "",
        mark=phrasing.MARKS.get(row.verdict or "", ""),
        primary=row.primary,
    )


def _overview(whole: Sequence[ComparisonRow]) -> list[tuple[str, charts.Dumbbells]]:
    """One chart for each set: metrics of different sets do not share an axis."""
    overview = []
    for name in dict.fromkeys(row.dataset for row in whole):
        chart = charts.dumbbells(
            [row for row in whole if row.dataset == name],
            lambda row: f"{phrasing.probe_name(row.probe)} {phrasing.metric_name(row.metric)}",
        )
        if chart:
            overview.append((name, chart))
    return overview


def _parts(rows: Sequence[ComparisonRow]) -> Iterator[PartSection]:
    """Metrics by class and group, worst change first. The first chart of a probe is open."""
    charted = set()
    for key in dict.fromkeys((row.probe, row.dataset, row.whole) for row in rows if row.part):
        members = [row for row in rows if row.part and (row.probe, row.dataset, row.whole) == key]
        members.sort(key=lambda row: (row.difference.value if row.difference else row.base.value, row.part))
        curve = plots.over_numbers(members)
        chart = None
        if curve is None:
            chart = charts.dumbbells(_ends(members), lambda row: row.part)
        probe, dataset, metric = key
        title = f"{phrasing.probe_name(probe)} {phrasing.metric_name(metric)} on {dataset}"
        left_out = max(0, len(members) - _CHART_LINES)
        folded = key[:2] in charted
        charted.add(key[:2])
        yield PartSection(title, chart, left_out, [_line(row) for row in members], curve, folded)


def _ends(members: Sequence[ComparisonRow]) -> Sequence[ComparisonRow]:
    """The largest changes in both directions, if there are too many lines for a chart."""
    if len(members) <= _CHART_LINES:
        return members
    return [*members[: _CHART_LINES // 2], *members[-_CHART_LINES // 2 :]]


def _reliability(evaluation: Evaluation) -> list[plots.Lines]:
    charted = [
        plots.reliability(
            f"{phrasing.probe_name(entry['probe'])} on {entry['dataset']}",
            entry["details"],
            entry.get("adapted_details", {}),
        )
        for entry in evaluation.protocol
    ]
    return [chart for chart in charted if chart is not None]


def _curves(context: ReportContext) -> list[tuple[str, charts.Curve]]:
    batch = context.run.batch_size if context.run else 0
    terms = context.run.facts.get("objectives") if context.run else None
    # The value at chance is known for the contrastive loss alone.
    chance = math.log(batch) if batch > 1 and terms == {"contrastive": 1.0} else None
    loss_title = f"Loss; dashed: chance, ln {batch} = {chance:.2f}" if chance else "Loss"
    series = (
        (loss_title, "loss", "loss", chance),
        ("Logit scale", "scale", "logit scale", None),
        ("Learning rate", "learning_rate", "learning rate", None),
        ("Loss on held-out pairs", "validation_loss", "held-out loss", None),
        ("First probe on held-out pairs", "validation_figure", "metric on held-out pairs", None),
        ("Retention during training", "retention", "retention", None),
    )
    curves = [(title, charts.curve(context.training, key, name, line)) for title, key, name, line in series]
    return [(title, curve) for title, curve in curves if curve]
