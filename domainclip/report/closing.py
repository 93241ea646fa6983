"""The last lines of `finetune`, `eval` and `ablate` on a terminal: the first screen of the report as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from rich.cells import cell_len

from domainclip.evaluation.evaluate import Evaluation
from domainclip.report import phrasing, questions
from domainclip.report.ablation_results import AblationRow, AblationTable
from domainclip.report.choice_phrasing import choice_in_words
from domainclip.report.context import ReportContext
from domainclip.report.corpus_words import places, words
from domainclip.report.questions import Answer

_SHOWN = 6  # variants of an ablation


def closing_lines(evaluation: Evaluation, context: ReportContext) -> list[str]:
    """One line for each question, in the domain and in general, and whether the evaluation is valid."""
    valid = evaluation.valid and not context.invalid
    rows = evaluation.rows if valid else [replace(row, verdict=None) for row in evaluation.rows]
    called = words(context)
    blocks, more = questions.blocks(rows, called, places(rows, context))
    aligned = _aligned([_cells(answer) for block in blocks for answer in block.answers])
    lines = [line for block in blocks for line in (block.heading, *islice(aligned, len(block.answers)))]
    if more_questions := sum(len(block.answers) for block in more):
        lines.append(f"{more_questions} more question{'' if more_questions == 1 else 's'} in the report.")
    if not valid:
        return [*lines, *questions.lead(rows, called, valid), *(f"Reason: {why}" for why in context.invalid)]
    tally = questions.tally(rows)
    cautions = [f"Note: {caution}" for caution in context.limits]
    return [*lines, *filter(None, [tally]), *cautions, "The evaluation is valid: no leak was found."]


def ablation_lines(table: AblationTable) -> list[str]:
    """The metric that decides, by variant, with its interval against the base; and the chosen variant."""
    row = _deciding(table)
    lines = list[str]()
    if row is not None and not table.invalid:
        title = phrasing.title(row).replace("\u00a0", " ")
        lines.append(f"{title} on {row.dataset}: mean over seeds, change from the base (95 %)")
        shown = list(row.trials)[:_SHOWN]
        general = _counterpart(table, row)
        named = [("base", *_base(row), *_base(general))]
        named += [(name, *_trials(name, row), *_trials(name, general)) for name in shown]
        if general is not None:
            lines[-1] += f"; the same on {table.general}"
        lines += _aligned([list(cells) for cells in named])
        if len(row.trials) > _SHOWN:
            lines.append(f"{len(row.trials) - _SHOWN} more variants in the table.")
    return [*lines, *choice_in_words(table), *(f"Not valid: {why}" for why in table.invalid)]


def _deciding(table: AblationTable) -> AblationRow | None:
    """The row of the metric that decides, or else the first headline metric of the corpus."""
    metric = table.choice.metric if table.choice is not None else ""
    named = (row for row in table.rows if f"{row.probe}/{row.dataset}/{row.metric}" == metric)
    headline = (row for row in table.rows if row.primary and row.dataset != table.general)
    return next(named, None) or next(headline, None)


def _counterpart(table: AblationTable, row: AblationRow) -> AblationRow | None:
    """The row of the same metric on the retention set."""
    same = (other for other in table.rows if (other.probe, other.metric) == (row.probe, row.metric))
    return next((other for other in same if other.dataset == table.general != row.dataset), None)


def _base(row: AblationRow | None) -> tuple[str, str]:
    return ("", "") if row is None else (phrasing.number(row.base.value, row.unit), "")


def _trials(name: str, row: AblationRow | None) -> tuple[str, str]:
    if row is None or name not in row.trials:
        return "", ""
    trials = row.trials[name]
    return phrasing.number(trials.mean, row.unit), phrasing.span(trials.from_base, row.unit, sign=True)


def _cells(answer: Answer) -> list[str]:
    """Label, values, chance, outcome and interval of one question."""
    values = f"{answer.before} → {answer.after}" if answer.after else answer.before
    chance = f"chance {answer.chance}" if answer.chance else ""
    outcome = f"{answer.mark} {answer.verdict}".strip()
    return [answer.label, values, chance, outcome, answer.interval or answer.note]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines with aligned columns; wide letters take two places."""
    rows = [[str(phrasing.plain(cell)).replace("\u00a0", " ") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
