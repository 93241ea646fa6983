"""The sections of a report as text and numbers, shared by the HTML and Markdown templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.verdicts import BETTER, WORSE, ComparisonRow
from domainclip.report import (
    charts,
    csv_links,
    error_analysis,
    example_cards,
    language_table,
    metric_tables,
    paper_tables,
    phrasing,
    plots,
    provenance,
    questions,
    tradeoff_plot,
)
from domainclip.report.citations import linked, linked_in_markdown
from domainclip.report.context import ReportContext
from domainclip.report.corpus_words import places, words

_ALARM = "while training, "  # prefix of the warnings that were raised during training


def build(evaluation: Evaluation, context: ReportContext) -> dict[str, Any]:
    """The variables of the templates."""
    valid = evaluation.valid and not context.invalid
    # An invalid evaluation has no verdicts.
    rows = evaluation.rows if valid else [replace(row, verdict=None) for row in evaluation.rows]
    whole = [row for row in rows if not row.part]
    crowded = len(whole) > metric_tables.CHART_LINES
    headlines = [row for row in whole if row.primary] or whole
    return {
        "title": context.title,
        "subtitle": _subtitle(context),
        "single": all(row.adapted is None for row in rows),
        "judged": any(row.verdict for row in rows),
        "valid": valid,
        "invalid": [*context.invalid, *([] if evaluation.valid else evaluation.warnings[:1])],
        **_first_screen(rows, context, valid),
        "plane": tradeoff_plot.plane(rows, context.retention_set, _facts(context)) if valid else None,
        "headlines": [metric_tables.line(row) for row in headlines],
        "lines": [metric_tables.line(row) for row in whole],
        "worse": phrasing.changes(rows, WORSE),
        "better": phrasing.changes(rows, BETTER),
        "nothing_worse": phrasing.no_changes(rows, WORSE),
        "nothing_better": phrasing.no_changes(rows, BETTER),
        "warnings": [*evaluation.warnings, *context.warnings],
        "overview": metric_tables.overview([row for row in whole if row.primary] if crowded else whole),
        "rest": metric_tables.overview([row for row in whole if not row.primary]) if crowded else [],
        "parts": list(metric_tables.parts(rows)),
        "languages": language_table.language_tables(rows),
        "errors": error_analysis.sections(evaluation),
        "subgroups": error_analysis.worst_subgroups(evaluation),
        "reliability": _reliability(evaluation),
        "curves": _curves(context),
        "alarms": [warning for warning in context.warnings if warning.startswith(_ALARM)],
        "alphas": plots.interpolation(_facts(context)),
        "examples": None if context.examples is None else example_cards.cards(context.examples),
        "downloads": csv_links.links(evaluation, context),
        "paper": _paper(rows, context, valid),
        **_provenance(evaluation, context, valid),
    }


def _paper(rows: Sequence[ComparisonRow], context: ReportContext, valid: bool) -> list[paper_tables.Pasted]:
    """The headline metrics as tables for a paper."""
    state = "95 % intervals of a bootstrap over" if valid else "Not valid, do not use. Intervals over"
    caption = f"{_subtitle(context)}. {state} {words(context).groups}."
    return paper_tables.formats(paper_tables.headline(rows, words(context).groups, caption))


def _first_screen(rows: Sequence[ComparisonRow], context: ReportContext, valid: bool) -> dict[str, Any]:
    """The verdict in words and one line for each question."""
    called = words(context)
    blocks, more_blocks = questions.blocks(rows, called, places(rows, context))
    return {
        "group_name": called.groups,
        "lead": questions.lead(rows, called, valid, trained=context.one_run),
        "tally": questions.tally(rows),
        "blocks": blocks,
        "more_blocks": more_blocks,
        "more_questions": sum(len(block.answers) for block in more_blocks),
        "cautions": context.limits,
        "external": context.external,
        "readings": str(context.readings) if context.readings else "",
    }


def _provenance(evaluation: Evaluation, context: ReportContext, valid: bool) -> dict[str, Any]:
    """How the models were made and measured."""
    return {
        "run": provenance.run(context.run),
        "corpora": [
            provenance.corpus(facts) for facts in (context.corpus, context.retention) if facts is not None
        ],
        "base": _identity(context.base),
        "adapted": _identity(context.adapted),
        "measuring": provenance.measuring(evaluation, context),
        "controls": provenance.controls(evaluation) if valid else [],
        "protocol": [provenance.protocol(entry) for entry in evaluation.protocol],
        "citations": [linked(citation) for citation in dict.fromkeys(context.citations)],
        "sources": [linked_in_markdown(citation) for citation in dict.fromkeys(context.citations)],
        "command": context.command,
        "recipe": context.recipe,
    }


def _facts(context: ReportContext) -> Mapping[str, Any]:
    return context.run.facts if context.run else {}


def _subtitle(context: ReportContext) -> str:
    base = str(context.base.get("name", "a model"))
    verb = "measured on" if context.run is None else "adapted to"
    return f"{base}, {verb} {context.corpus.name}"


def _identity(model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The facts that identify a model, as labels and texts."""
    return [
        (provenance.label(key), provenance.text(value))
        for key, value in model.items()
        if value not in (None, "")
    ]


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
