"""Several models on one page: compare.html and compare.md.

Each model is compared with the first, on the same items. Two models are reported in results.json instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import csv_links, paper_tables, phrasing, questions
from domainclip.report.comparison_file import estimates, rows_by_metric, warnings
from domainclip.report.context import ReportContext
from domainclip.report.corpus_words import Words, places, words


@dataclass(frozen=True)
class AnswerCell:
    """The answer of one model to a question; the first model has a value alone."""

    value: str
    verdict: str  # in ordinary words
    kind: str  # the verdict of the row, for the style
    mark: str
    note: str


@dataclass(frozen=True)
class AnswerLine:
    """A question about one set, with the answer of each model."""

    label: str
    chance: str
    cells: Sequence[AnswerCell]


@dataclass(frozen=True)
class Cell:
    """A cell of the table: the value of one model."""

    value: str
    span: str
    difference: str  # empty for the first model
    verdict: str
    mark: str
    best: bool


@dataclass(frozen=True)
class CompareLine:
    """A row of the table: one metric of all models."""

    name: str
    dataset: str
    n: str
    groups: str
    primary: bool
    cells: Sequence[Cell]


def build(
    evaluations: Sequence[Evaluation], context: ReportContext, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The variables of the templates of a comparison."""
    valid = evaluations[0].valid and not context.invalid
    rows = list(rows_by_metric(evaluations))
    lines = [_line(metric, valid) for metric in rows]
    return {
        "title": f"{len(models)} models on {context.corpus.name}",
        "models": list(models),
        "about": [(label, _facts(facts)) for label, facts in models.items()],
        "valid": valid,
        "invalid": [*context.invalid, *([] if evaluations[0].valid else evaluations[0].warnings[:1])],
        **_first_screen(evaluations, context, list(models), valid),
        "lines": [line for line, metric in zip(lines, rows, strict=True) if not metric[0].part],
        "parts": [line for line, metric in zip(lines, rows, strict=True) if metric[0].part],
        "warnings": warnings(evaluations, context),
        "trained_on": list(context.trained_on),
        "resamples": f"{evaluations[0].resamples:,}",
        "seed": evaluations[0].seed,
        "command": context.command,
        "download": csv_links.address(_csv(rows, list(models), valid)),
        "paper": _paper(evaluations, context, list(models), valid),
    }


def _first_screen(
    evaluations: Sequence[Evaluation], context: ReportContext, labels: Sequence[str], valid: bool
) -> dict[str, Any]:
    """The verdict on each model in words, and one line for each question."""
    called = words(context)
    judged = [
        evaluation.rows if valid else [replace(row, verdict=None) for row in evaluation.rows]
        for evaluation in evaluations
    ]
    leads = [questions.lead(rows, called, valid, trained=False) for rows in judged]
    return {
        "group_name": called.groups,
        # The last sentence is the number of groups, which is the same for all.
        "leads": [(label, " ".join(lead[:-1])) for label, lead in zip(labels[1:], leads, strict=True)]
        if valid
        else [],
        "measured": leads[0][-1],
        "blocks": list(_blocks(judged, called, places(judged[0], context))),
        "cautions": context.limits,
        "readings": str(context.readings) if context.readings else "",
        "external": context.external,
    }


def _blocks(
    models: Sequence[Sequence[ComparisonRow]], called: Words, headings: Mapping[str, str]
) -> Iterator[tuple[str, list[AnswerLine]]]:
    """The questions by set, the retention set last."""
    asked = list(zip(*(questions.asked(rows) for rows in models), strict=True))
    sets = dict.fromkeys(members[0].dataset for members in asked)
    for name in sorted(sets, key=lambda name: name == called.retention_set):
        lines = [_answers(members, called) for members in asked if members[0].dataset == name]
        yield headings.get(name, f"On {name}"), lines


def _answers(members: Sequence[ComparisonRow], called: Words) -> AnswerLine:
    shared = questions.answer(members[0], called)
    values = questions.texts([estimate.value for estimate in estimates(members)], members[0])
    others = [
        AnswerCell(value, answer.verdict, answer.kind, answer.mark, _note(row, answer))
        for value, row in zip(values[1:], members, strict=True)
        for answer in [questions.answer(row, called)]
    ]
    return AnswerLine(shared.label, shared.chance, [AnswerCell(values[0], "", "", "", ""), *others])


def _note(row: ComparisonRow, answer: questions.Answer) -> str:
    return f"since {row.control_fault}" if row.control_fault else answer.note


def _paper(
    evaluations: Sequence[Evaluation], context: ReportContext, labels: Sequence[str], valid: bool
) -> list[paper_tables.Pasted]:
    rows = {label: evaluation.rows for label, evaluation in zip(labels[1:], evaluations, strict=True)}
    state = "Values with 95 % intervals." if valid else "Not valid: do not use."
    return paper_tables.formats(
        paper_tables.several(rows, labels[0], f"{len(labels)} models on {context.corpus.name}. {state}")
    )


def _line(rows: Sequence[ComparisonRow], valid: bool) -> CompareLine:
    first = rows[0]
    best = _best(rows)
    return CompareLine(
        name=phrasing.title(first),
        dataset=first.dataset,
        n=str(first.n),
        groups=str(first.groups),
        primary=first.primary,
        cells=[
            _cell(estimate, row, first.unit, estimate.value == best, valid)
            for estimate, row in zip(estimates(rows), [None, *rows], strict=True)
        ],
    )


def _cell(estimate: Estimate, row: ComparisonRow | None, unit: str, best: bool, valid: bool) -> Cell:
    change = row.shown if row else None
    verdict = (row.verdict or "") if row and valid else ""
    return Cell(
        value=phrasing.number(estimate.value, unit),
        span=phrasing.span(estimate, unit),
        difference=phrasing.signed(change.value, unit) if change else "",
        verdict=verdict,
        mark=phrasing.MARKS.get(verdict, ""),
        best=best,
    )


def _best(rows: Sequence[ComparisonRow]) -> float:
    values = [estimate.value for estimate in estimates(rows) if not math.isnan(estimate.value)]
    if not values or not rows[0].comparable:
        return math.nan
    return max(values) if rows[0].higher_is_better else min(values)


def _csv(rows: Sequence[Sequence[ComparisonRow]], labels: Sequence[str], valid: bool) -> str:
    header = ["probe", "set", "metric", "part", "n", "groups", "model", "value", "low", "high"]
    body: list[list[Any]] = []
    for members in rows:
        first = members[0]
        start = [first.probe, first.dataset, first.whole, first.part, first.n, first.groups]
        for label, estimate, row in zip(labels, estimates(members), [None, *members], strict=True):
            change = row.shown if row else None
            apart = [None] * 4 if change is None else [change.value, change.low, change.high, change.p]
            verdict = (row.verdict or "" if valid else "not valid") if row else ""
            body.append([*start, label, estimate.value, estimate.low, estimate.high, *apart, verdict])
    apart_header = ["difference", "difference_low", "difference_high", "p", "verdict"]
    return csv_links.table([*header, *apart_header], body)


def _facts(facts: Mapping[str, Any]) -> str:
    keys = ("name", "revision", "family", "weights_sha256")
    shown = [f"{key.replace('_', ' ')} {str(facts[key])[:16]}" for key in keys if facts.get(key)]
    return ", ".join(shown)
